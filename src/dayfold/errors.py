"""The tree of errors."""

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

    exit_code = 3  # its own, so that a nightly job can tell a bad day from a broken one


class IntakeError(DayfoldError):
    """Files that were given as images cannot be taken as they are."""


class RefusedError(IntakeError):
    """Files were refused: of too many none was taken; the others to be predicted are answered."""

    exit_code = 4  # its own: there may be answers, and others may have been taken
    count = 0  # of all that `problems` may name the first of


class LedgerError(DayfoldError):
    """A manifest, a correction or the chain of manifests does not hold together."""


class ImageMissingError(DayfoldError):
    """Images that a manifest names are not there, or are no longer the bytes that it pins."""


class ModelError(DayfoldError):
    """A model file is missing, damaged, or not what its place calls for."""


class TrainingError(DayfoldError):
    """A training came to numbers that are not finite; nothing of it was kept."""


class ToolError(DayfoldError):
    """git or dvc failed or is missing."""
