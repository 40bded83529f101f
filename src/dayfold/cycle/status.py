"""Where a project stands, what is next."""

from dayfold.cycle import opening
from dayfold.errors import CycleError, LedgerError, ParamsError, ToolError
from dayfold.figures import evidence, gate
from dayfold.history import refusals
from dayfold.history.day_files import put_in_index
from dayfold.history.state import ProjectState, unused_folders
from dayfold.ledger import corrections
from dayfold.ledger.intake import finding
from dayfold.project import journal, vcs
from dayfold.project.console import arrows, plural
from dayfold.project.layout import Project


def advice(project: Project) -> list[str]:
    """Return lines on where the project stands and what to run next."""
    try:
        now = ProjectState.read(project)
        is_untagged = now.day in now.untagged
    except (LedgerError, ParamsError):
        vcs.check_nothing_under_way(project.root, conflicts_only=True)  # a conflict is no YAML
        raise
    unused = unused_folders(now)
    begin = next((one.command for one in unused if one.command), "dayfold add FOLDER")
    classes = now.params.origin.classes
    unseen = evidence.unseen(now.sealed_history, classes) if classes else ()
    known = [f"known   {evidence.no_image(unseen)}"] * bool(unseen)
    if now.is_unopened and not now.sealed:
        return ["no day yet", *known, *map(str, unused), f"next    {begin}"]
    state = "sealed" if now.is_sealed else "committed" if is_untagged else "open"
    lines = [
        f"day     {now.day}, {state}; parent {now.params.parent}",
        f"sealed  {plural(len(now.sealed), 'day')}",
        *known,
        *(f"unused  {one}" + f": {one.command}" * bool(one.command) for one in unused),
    ]
    try:
        refusals.check(now, "open")
    except CycleError as error:
        problems = [f"  - {one}" for one in error.problems]
        return [*lines, error.what, *problems, f"next    {error.hint}"]
    if now.is_sealed:
        return [*lines, f"next    {begin}"]
    put_in_index(project, now.day)
    labels = finding.count_by_class(project, now.day)
    history, corrected = now.sealed_history, corrections.of_day(project, now.day)
    renamed = corrections.renamed(history, corrected, labels)
    new = sorted(set(labels) - {*history.images["label"].unique(), *renamed.values()})
    said = f"images  {sum(labels.values())} in {plural(len(labels), 'class')}"
    said += f"; new: {', '.join(new)}" * bool(new)
    lines.append(said + f"; renamed or merged: {arrows(renamed)}" * bool(renamed))
    if not labels and not corrected:
        return [*lines, "next    dayfold add FOLDER, or dayfold undo to close the day"]
    try:
        changed = opening.stale(project, now.day)
    except ToolError:
        if busy := journal.at_work(project):
            return [*lines, f"busy    {', '.join(busy)}", "next    wait for it, or stop it"]
        raise
    if changed:
        return [*lines, f"stale   {', '.join(changed)}", "next    dvc repro"]
    checks = gate.read(project, now.day)
    reasons = [f"  - {reason}" for reason in gate.reasons(checks)]
    lines += [f"gate    {gate.verdict(checks)}", *reasons]
    return [*lines, f"next    {gate.next_step(checks)}"]
