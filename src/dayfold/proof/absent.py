"""What DVC keeps of the sealed days and this machine lacks: where it is, and what brings it."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dayfold.project import cache, remotes, vcs
from dayfold.project.cache import Pin
from dayfold.project.console import MOST_LINES, first_few
from dayfold.project.layout import Project
from dayfold.project.remotes import Answer
from dayfold.proof import chain
from dayfold.proof.chain import Finding
from dayfold.proof.record import Sealed, span

Fix = Callable[[str, str], str]  # of an MD5, and the command that a remote may need
# So that DVC does not pass over days that were sealed before the remote was set up.
FIRST = "dayfold check --fix; "
ADD_REMOTE = (
    'dvc remote add --default NAME URL && git commit -m "Add a remote" .dvc/config && git push; '
)


class _Kept(NamedTuple):
    """Something that DVC keeps of a day; `is_pulled`: `dvc pull` brings it, as today needs it."""

    day: str
    path: str
    key: str
    is_pulled: bool

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return Pin(self.path, self.key).is_folder


@dataclass
class Absent:
    """What is not here: `lost`, which no remote that was asked has, and `later`, which one may.

    `unpushed` are the days of which the cache here has something that the default remote lacks,
    and `problem` says why the remote could not be asked.
    """

    lost: list[Finding] = field(default_factory=list)
    later: list[Finding] = field(default_factory=list)
    unpushed: list[str] = field(default_factory=list)
    problem: str = ""


def look(
    project: Project, line: Sequence[Sealed], objects: Path, *, current: str, ask_all: bool
) -> Absent:
    """Find what of a line of sealed days neither the working tree nor DVC's cache has.

    The default remote is asked for it; with `ask_all` for all that the cache has, too. `current`
    is the day whose outputs lie in the working tree.
    """
    kept = [one for sealed in line for one in _kept(project, sealed, current)]
    cached = {one for one in kept if cache.object_path(objects, one.key).exists()}
    # A folder that lies here is read there: its object in the cache is not missed.
    away = [one for one in kept if not (one.is_folder and (project.root / one.path).is_dir())]
    gone = [one for one in away if one not in cached]
    found, days = Absent(), [sealed.day for sealed in line]
    if some := [one for one in away if one in cached and one.is_folder]:
        found.later.append(_finding(some, days, "in DVC's cache only", _checkout(project, some)))
    setup = remotes.setup(project.root)
    asked = [one.key for one in (kept if ask_all else gone)]
    answer = remotes.ask(project.root, asked) if setup.default else Answer()
    found.problem = answer.problem
    found.unpushed = sorted({one.day for one in cached if one.key in answer.lacking})
    if not gone:
        return found
    if setup.default:
        _sort(project, gone, days, setup.default, answer, found)
    else:
        found.lost += _lost(project, gone, days, "not here, and no remote is set up to ask")
    if all(sealed.images is None or project.images(sealed.day).is_dir() for sealed in line):
        found.lost = [_or_reproduce(one, gone) for one in found.lost]
    return found


def of_images(project: Project, days: Iterable[str]) -> list[str]:
    """Return those of the days whose folder of images DVC tracks and is not here."""
    return [day for day in days if chain.pinned(project, day) and not project.images(day).is_dir()]


def command(project: Project, days: Iterable[str]) -> str:
    """Return the command that brings the images of these days."""
    pins = (chain.pinned(project, day) for day in days)
    return remotes.pulling(project.root, [str(pin["md5"]) for pin in pins if pin])


def by_remote(project: Project, keys: Sequence[str], days: Sequence[str]) -> Fix:
    """Return a function of the MD5 of damaged bytes and the command that fetches them once more.

    It is the command where the default remote has the bytes, or could not be asked; else words.
    """
    setup = remotes.setup(project.root)
    answer = remotes.ask(project.root, keys) if setup.default else Answer()
    first = FIRST if keys and remotes.late(project.root, days) else ""

    def fix(key: str, command: str) -> str:
        if not setup.default:
            return "no remote is set up to bring it; another clone may have it"
        if key in answer.lacking:
            clone = "another clone may have it, to push it from there: dvc push --all-tags"
            return f"the remote {setup.default} does not have it; {clone}"
        return first * ("--all-tags" in command) + command

    return fix


def _kept(project: Project, sealed: Sealed, current: str) -> Iterator[_Kept]:
    """All that DVC keeps of a day, its images and, of the current one, its parent too."""
    is_current = sealed.day == current
    for pin in sealed.outs():
        if pin.path not in sealed.files:
            yield _Kept(sealed.day, pin.path, pin.md5, is_current)
    if sealed.images:
        yield _Kept(sealed.day, project.name(project.images(sealed.day)), sealed.images.md5, True)
    if is_current:
        yield _Kept(sealed.day, project.name(project.parent), sealed.parent_pin.md5, True)


def _sort(
    project: Project,
    gone: Sequence[_Kept],
    days: Sequence[str],
    remote: str,
    answer: Answer,
    found: Absent,
) -> None:
    """Sort what is not here into what the remote has, or may have, and what it lacks."""
    late = set(remotes.late(project.root, days))
    lacking = [one for one in gone if one.key in answer.lacking]
    found.lost += _lost(
        project, lacking, days, f"not here, and never pushed to the remote {remote}", late
    )
    state = f"not here yet; the remote {remote} has it"
    if answer.problem:
        state = f"not here; the remote {remote} could not be asked ({answer.problem})"
    for is_pulled, command in ((True, "dvc pull"), (False, "dvc fetch --all-tags")):
        some = [one for one in gone if one.is_pulled == is_pulled and one not in lacking]
        if some:
            first = FIRST * (not is_pulled and any(one.day in late for one in some))
            found.later.append(_finding(some, days, state, first + command))


def _lost(
    project: Project,
    gone: Sequence[_Kept],
    days: Sequence[str],
    what: str,
    late: Collection[str] | None = None,
) -> Iterator[Finding]:
    """A finding for each person who sealed some of it: it can be pushed from that clone only."""
    sealers = vcs.sealers(project.root)
    for sealer in sorted({sealers.get(one.day, "") for one in gone}):
        some = [one for one in gone if sealers.get(one.day, "") == sealer]
        first = ADD_REMOTE + FIRST if late is None else ""
        first += FIRST * any(one.day in (late or ()) for one in some)
        where = f"in the clone where {sealer or 'somebody'} sealed it: {first}dvc push --all-tags"
        yield _finding(some, days, what, where)


def _or_reproduce(found: Finding, gone: Sequence[_Kept]) -> Finding:
    """The same where the images are here: then the days can be made again."""
    days = sorted({one.day for one in gone})
    named = " ".join(days) if len(days) <= MOST_LINES else "--all"
    command = f"dayfold reproduce {named} --from-scratch --restore"
    return found._replace(fix=f"{found.fix}; or make it again here: {command}")


def _finding(some: Sequence[_Kept], days: Sequence[str], what: str, fix: str) -> Finding:
    paths = list(dict.fromkeys(one.path for one in some))
    about = span(sorted({one.day for one in some}), days)
    return Finding(about, f"{what}: {', '.join(first_few(paths))}", fix)


def _checkout(project: Project, cached: Sequence[_Kept]) -> str:
    names = dict.fromkeys(project.name(chain.tracking(project, one.day)) for one in cached)
    return f"dvc checkout {' '.join(names)}" if len(names) <= MOST_LINES else "dvc checkout"
