"""The exception classes."""

from collections.abc import Sequence


class DayfoldError(Exception):
    """Anything that a user can cause or fix; printed without a traceback.

    `what` is one sentence, `problems` every single finding, `hint` the next command or edit.
    """

    exit_code = 1

    def __init__(self, what: str, *, problems: Sequence[str] = (), hint: str = "") -> None:
        self.what = what
        self.problems = list(problems)
        self.hint = hint
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what, *(f"  - {problem}" for problem in self.problems)]
        if self.hint:
            lines.append(f"→ {self.hint}")
        return "\n".join(lines)


class ParamsError(DayfoldError):
    """params.yaml holds a key, type or value that is not allowed, or is another version's."""


class CycleError(DayfoldError):
    """The step does not fit the state of the project: not open, not sealed, not up to date."""


class GateError(CycleError):
    """The day does not pass the gate; `problems` are the reasons."""

    exit_code = 3  # its own: a nightly job can tell a failed gate from an error


class IntakeError(DayfoldError):
    """Files that were given as images cannot be used."""


class RefusedError(IntakeError):
    """Files were refused; the others may have been added or predicted."""

    exit_code = 4  # its own: the other files may have been added or predicted
    count = 0  # all refused files; `problems` may list only the first


class LedgerError(DayfoldError):
    """A manifest, a correction or the chain of manifests is inconsistent."""


class ImageMissingError(DayfoldError):
    """Images of a manifest are missing, or have other bytes than it pins."""


class ModelError(DayfoldError):
    """A model file is missing, damaged or not the expected one."""


class TrainingError(DayfoldError):
    """A training reached numbers that are not finite; its result was discarded."""


class ToolError(DayfoldError):
    """git or dvc failed or is missing."""
