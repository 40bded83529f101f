"""What DVC keeps of the sealed days and is missing here, and the command that brings it."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from dayfold.project import cache, remotes, vcs
from dayfold.project.console import MOST_LINES, first_few
from dayfold.project.layout import Project
from dayfold.proof import chain
from dayfold.proof.chain import Finding
from dayfold.proof.record import Sealed, span

# So that DVC does not pass over days that were sealed before the remote was set up.
FIRST = "dayfold check --fix; "
ADD_REMOTE = (
    'dvc remote add --default NAME URL && git commit -m "Add a remote" .dvc/config && git push; '
)


class Kept(NamedTuple):
    """A file or folder that DVC keeps of a day; `is_pulled`: `dvc pull` brings it today."""

    day: str
    path: str
    key: str
    is_pulled: bool

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.key.endswith(cache.FOLDER)


def kept(project: Project, sealed: Sealed, current: str) -> Iterator[Kept]:
    """All that DVC keeps of a day; `current` is the day that lies in the working tree."""
    day, is_current = sealed.day, sealed.day == current
    for path, key in sealed.outs().items():
        if path not in sealed.files:
            yield Kept(day, path, key, is_current)
    if sealed.images_md5:
        yield Kept(day, project.name(project.images(day)), sealed.images_md5, True)
    if is_current:
        yield Kept(day, project.name(project.parent), sealed.parent_md5, True)


@dataclass(frozen=True)
class Source:
    """The default remote, by name ("": none), as what brings things that are missing or damaged.

    It was asked for objects and is `lacking` some, or there was a `problem` with asking. Where it
    `is_late` days were sealed before it was set up. `sealers` sealed each day, in another clone
    perhaps.
    """

    remote: str
    lacking: frozenset[str]
    problem: str
    is_late: bool
    sealers: Mapping[str, str]

    @classmethod
    def asked(cls, root: Path, keys: Iterable[str], days: Sequence[str]) -> Self:
        """Ask the default remote, if there is one, which of these objects it lacks."""
        answer = remotes.ask(root, keys)
        late = remotes.is_late(root, days)
        return cls(remotes.default(root), *answer, late, vcs.sealers(root))

    def has(self, key: str) -> bool:
        """Whether the remote has an object, as far as it could be asked."""
        return bool(self.remote) and key not in self.lacking

    def bringing(self, key: str, day: str, command: str) -> str:
        """Return the command that brings an object of a day by the remote, or how to get it there.

        What the remote lacks can be pushed from the clone of the person who sealed the day.
        """
        late = FIRST if not self.remote or self.is_late else ""
        if self.has(key):
            return late * ("--all-tags" in command) + command
        push = f"{'' if self.remote else ADD_REMOTE}{late}dvc push --all-tags"
        return f"in the clone where {self.sealers.get(day) or 'somebody'} sealed it: {push}"

    def state(self, key: str) -> str:
        """Return, of an object that is not here, what is known of it."""
        if not self.remote:
            return "not here, and no remote is set up to ask"
        if not self.has(key):
            return f"not here, and never pushed to the remote {self.remote}"
        if self.problem:
            return f"not here; the remote {self.remote} could not be asked ({self.problem})"
        return f"not here yet; the remote {self.remote} has it"


def look(
    project: Project,
    line: Sequence[Sealed],
    kept: Sequence[Kept],
    cached: Collection[Kept],
    source: Source,
) -> Iterator[tuple[Finding, bool]]:
    """Say what of a line of days neither the working tree nor the cache has, like things together.

    And of each whether it is lost: the source has not got it either.
    """
    # A folder that lies here is read there: its object in the cache is not missed.
    away = [one for one in kept if not (one.is_folder and (project.root / one.path).is_dir())]
    if some := [one for one in away if one in cached and one.is_folder]:
        names = dict.fromkeys(target(project, project.root / one.path) for one in some)
        command = " ".join(["dvc checkout", *(names if len(names) <= MOST_LINES else ())])
        yield _finding(some, line, "in DVC's cache only", command), False
    alike: dict[tuple[str, str], list[Kept]] = {}
    for one in sorted(away, key=lambda one: not one.is_pulled):
        if one not in cached:
            command = "dvc pull" if one.is_pulled else "dvc fetch --all-tags"
            way = source.bringing(one.key, one.day, command)
            alike.setdefault((source.state(one.key), way), []).append(one)
    has_images = all(not one.images_md5 or project.images(one.day).is_dir() for one in line)
    for (state, way), some in alike.items():
        is_lost, last = not source.has(some[0].key), max(one.day for one in some)
        if is_lost and has_images:
            way += f"; or make it again here: dayfold reproduce --from-scratch --restore {last}"
        yield _finding(some, line, state, way), is_lost


def _finding(some: Sequence[Kept], line: Sequence[Sealed], what: str, fix: str) -> Finding:
    paths = list(dict.fromkeys(one.path for one in some))
    days = span(sorted({one.day for one in some}), [sealed.day for sealed in line])
    return Finding(days, f"{what}: {', '.join(first_few(paths))}", fix)


def target(project: Project, path: Path) -> str:
    """What `dvc checkout` calls a file or folder: the .dvc file that tracks it, or itself."""
    images = project.data / "images"
    if images in path.parents:
        return project.name(chain.tracking(project, path.relative_to(images).parts[0]))
    if project.parent in (path, *path.parents):
        return project.name(project.parent.with_suffix(".dvc"))
    return project.name(path)


def images(project: Project, days: Iterable[str]) -> list[str]:
    """Return those of the days whose folder of images DVC tracks and is not here."""
    return [day for day in days if chain.pinned(project, day) and not project.images(day).is_dir()]
