"""Any sealed day's model, by name: through git and DVC, checked against what the day's tag pins."""

import shlex

from dayfold.errors import CycleError, ModelError, ToolError
from dayfold.figures import gate
from dayfold.learning import network
from dayfold.learning.network import Model
from dayfold.project import params as params_file
from dayfold.project import remotes, vcs
from dayfold.project.files import md5_file
from dayfold.project.layout import Project, check_day


def meant(project: Project, day: str | None) -> str:
    """Return the day whose model is meant: `day`, or the last sealed one that passed its gate.

    Raises CycleError where there is no such day. The open day may be meant by name.
    """
    sealed = vcs.sealed_days(project.root)
    if day is None:
        passed = gate.last_passed(project, sealed)
        if passed is None:
            raise CycleError(
                f"None of the {len(sealed)} sealed days passed its gate, so no model is the one "
                "to use.",
                mend="dayfold log shows why; name a day to use its model all the same: --day",
            )
        return passed
    opened = params_file.read(project.params).day
    if check_day(day) not in (*sealed, opened):
        shown = ", ".join(sealed[-3:]) or "none"
        raise CycleError(
            f"There is no model of {day}: it is not a sealed day.",
            mend=f"the last sealed days are: {shown}",
        )
    return day


def said(project: Project, day: str, named: str | None) -> str:
    """Say which day's model is taken, and why it is that one where no day was named."""
    if named:
        return f"model of {day}"
    later = [one for one in vcs.sealed_days(project.root) if one > day]
    failed = f"; {', '.join(later[:3])}{' …' * (len(later) > 3)} did not" if later else ""
    return f"model of {day}, the last day that passed its gate{failed}"


def check_here(project: Project) -> None:
    """Raise ModelError where DVC has a model of the day in params.yaml, and it is not in data/."""
    lock = vcs.outputs(project.dvc_lock.read_bytes()) if project.dvc_lock.exists() else {}
    name = project.name(project.model)
    if name in lock and not project.model.exists():
        raise ModelError(
            f"{name} is not here yet.", mend=remotes.pulling(project.root, [lock[name]])
        )


def model_of(project: Project, day: str) -> Model:
    """Return the model of a sealed day, or that of the open day as it stands.

    What lies in data/ is taken where it is the sealed one; else what DVC's cache or a remote has.
    Raises ModelError where it is not, to the byte, the one that the tag pins.
    """
    if day not in vcs.sealed_days(project.root):
        check_here(project)
        model = network.load(project.model)
        if model.metadata["day"] != day:
            raise ModelError(f"{day} is open and has no model yet.", mend="dvc repro")
        return model
    name = project.name(project.model)
    pinned = vcs.sealed_outputs(project.root, day)[name]
    if project.model.exists() and md5_file(project.model) == pinned:
        return network.load(project.model)
    try:
        kept = remotes.bring(project.root, pinned)
    except ToolError as error:
        raise ModelError(
            f"The model of {day} is neither in DVC's cache here nor to be had from a remote:",
            problems=error.problems,
            mend=error.mend,
        ) from None
    if md5_file(kept) != pinned:
        raise ModelError(
            f"What DVC's cache has as the model of {day} is not the one that was sealed.",
            mend=f"remove it, then run the command again: rm -f {shlex.quote(str(kept))}",
        )
    return network.load(kept)
