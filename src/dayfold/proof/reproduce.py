"""Days made again: `git worktree add` at the day's tag, `dvc repro --force` in it, a comparison.

The images come by link from the project's own folders, or else from DVC's cache or a remote; the
parent comes from the cache, or from the day that was just made. Nothing is put into the cache, so
that what is made is not taken from there either.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import psutil

from dayfold import __version__
from dayfold.errors import CycleError, DayfoldError, ToolError
from dayfold.ledger import manifest
from dayfold.project import cache, remotes, upgrade, vcs
from dayfold.project import params as params_file
from dayfold.project.console import Ticker, first_few
from dayfold.project.files import only_one
from dayfold.project.layout import Project, check_day
from dayfold.proof import chain, record
from dayfold.proof.compare import LEVELS, Rebuilt, compare, compare_figures, expected, shown
from dayfold.proof.erased import needed
from dayfold.proof.record import Sealed

Say = Callable[[str], None]
TAIL = 3  # lines of what `dvc repro` says that are shown where a stage fails


@dataclass(frozen=True)
class Options:
    """How days are made again.

    `from_scratch`: the first from the origin, each other one from the model just made. `jobs`: how
    many at a time. `threads` trains with another number of them: a control, which must come out
    different. `restore` gives DVC's cache what it has lost of a day that came out identical.
    `here`: days of another version are made by this one, and their figures are compared.
    """

    from_scratch: bool = False
    jobs: int = 1
    threads: int | None = None
    restore: bool = False
    here: bool = False


@dataclass(frozen=True)
class _Run:
    """One `dayfold reproduce`: DVC's cache, and the erased images that days need, by day."""

    project: Project
    options: Options
    objects: Path
    erased: Mapping[str, Sequence[str]]
    lock: Lock = field(default_factory=Lock)  # for git's worktrees, and images that many days need

    def outputs_of(self, day: str) -> Path:
        """Where a day's model and predictions wait for the next day."""
        return self.project.rebuilt / "made" / day


def reproduce(
    project: Project, days: Sequence[str], options: Options | None = None, *, say: Say
) -> list[Rebuilt]:
    """Make sealed days again in temporary worktrees and compare every output; all days for none.

    Apart from `restore` nothing in the project is changed, and nothing is left behind. A day that
    needs an image that was erased is told, and not made. Raises CycleError where a day is not
    sealed.
    """
    options = options or Options()
    if options.from_scratch and options.jobs > 1:
        raise CycleError(
            "From scratch, each day starts from the one before it: one at a time.",
            mend="leave out --jobs, or --from-scratch",
        )
    line, wanted = line_of(project, days)
    wanted = line if options.from_scratch else wanted
    say(f"{LEVELS}\n")
    for text in expected(wanted, options.threads):
        say(text)
    say("")
    objects = cache.folder(project.root)
    erased = needed(project, manifest.history(project, line[-1].day), wanted, objects)
    run = _Run(project, options, objects, erased)
    results = []
    with worktrees(project), Ticker("reproducing", len(wanted), "days") as ticker:
        made = _side_by_side if options.jobs > 1 else _in_a_row
        for result in made(run, wanted):
            ticker.line(shown(result))
            ticker.advance(1)
            results.append(result)
    return sorted(results, key=lambda result: result.day)


def line_of(project: Project, days: Sequence[str]) -> tuple[list[Sealed], list[Sealed]]:
    """Return the line from the origin to the last of these sealed days, and these days of it.

    All sealed ones if none is named. Raises CycleError where they are not sealed, or not of one
    history.
    """
    sealed = vcs.sealed_days(project.root)
    if not sealed:
        raise CycleError(
            "No day is sealed here yet.", mend="git fetch --tags, if days were sealed elsewhere"
        )
    if missing := [day for day in days if check_day(day) not in sealed]:
        raise CycleError(
            f"Not sealed here: {', '.join(first_few(missing))}; "
            f"sealed are {sealed[0]} to {sealed[-1]}.",
            mend="git fetch --tags, if they were sealed elsewhere; dayfold log shows all",
        )
    wanted = sorted(set(days)) or sealed
    known = record.read(project, [day for day in sealed if day <= wanted[-1]])
    line, broken = chain.walk(project, known, wanted[-1])
    for day, what, fix in broken:
        raise CycleError(f"{day} cannot be made again: {what}.", mend=fix)
    if strays := sorted(set(wanted) - set(line)):
        raise CycleError(
            f"Not of one history with {wanted[-1]}: {', '.join(first_few(strays))}.",
            mend="reproduce them by themselves; docs/operations.md, two clones that sealed",
        )
    return [known[day] for day in line], [known[day] for day in line if day in wanted]


def _side_by_side(run: _Run, wanted: Sequence[Sealed]) -> Iterator[Rebuilt]:
    """Each day from its recorded parent, several at a time."""
    with ThreadPoolExecutor(run.options.jobs) as pool:
        futures = [pool.submit(_rebuild, run, sealed) for sealed in wanted]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            _stop(futures)
            raise


def _stop(futures: Sequence[Future[Rebuilt]]) -> None:
    """End every `dvc repro` that runs, and its stage with it, until no day is being made."""
    while wait(futures, timeout=0.2).not_done:
        for child in psutil.Process().children():
            with suppress(psutil.Error):
                if "dvc" in child.cmdline():
                    child.kill()


def _in_a_row(run: _Run, wanted: Sequence[Sealed]) -> Iterator[Rebuilt]:
    """Day after day; from scratch each from the day that was just made."""
    parent, since = None, ""
    for number, sealed in enumerate(wanted):
        result = _rebuild(run, sealed, parent, since)
        yield result
        if not run.options.from_scratch:
            continue
        if not result.is_identical:
            since = since or sealed.day
        parent = run.outputs_of(sealed.day)
        if not parent.exists():
            for later in wanted[number + 1 :]:
                yield Rebuilt(later.day, problem=f"{sealed.day} could not be made")
            return


def _rebuild(run: _Run, sealed: Sealed, parent: Path | None = None, since: str = "") -> Rebuilt:
    """Make a day and compare it; `since` is the day from which on its parent is another one."""
    if problem := _why_not(run, sealed):
        return Rebuilt(sealed.day, problem=problem)
    try:
        with _worktree(run, sealed, parent) as folder:
            vcs.dvc(folder.root, "repro", "--force", "--no-commit")
            result = _compared(run, sealed, folder, since)
            if run.options.restore and result.is_identical:
                _restore(sealed, folder)
            if run.options.from_scratch:
                _hand_on(folder, run.outputs_of(sealed.day))
            return result
    except ToolError as error:
        said = " ".join([error.what, *error.problems[-TAIL:]])
        return Rebuilt(sealed.day, problem=said)
    except DayfoldError as error:
        return Rebuilt(sealed.day, problem=str(error).replace("\n", " "))


def _why_not(run: _Run, sealed: Sealed) -> str:
    """Why a day cannot be made again; nothing if it can."""
    if paths := run.erased.get(sealed.day):
        return f"it needs images that were erased: {', '.join(first_few(paths))}"
    if run.options.here or _is_of_this_version(sealed):
        return ""
    pinned = sealed.params.get("dayfold")
    return (
        f"it was made by dayfold {pinned}, installed is {__version__}: "
        f"pip install dayfold=={pinned}, or compare figures by --here"
    )


def _is_of_this_version(sealed: Sealed) -> bool:
    return bool(sealed.params.get("dayfold") == __version__)


@contextmanager
def _worktree(run: _Run, sealed: Sealed, parent: Path | None) -> Iterator[Project]:
    """Lay a day out as its tag has it, with its images and its parent, ready for `dvc repro`.

    Raises CycleError or ToolError where images or parent cannot be had.
    """
    folder = Project(run.project.rebuilt / sealed.day)
    words = ("worktree", "add", "--quiet", "--detach", str(folder.root), vcs.TAG + sealed.day)
    with run.lock:
        # No hooks: DVC's own would check out every image and model.
        vcs.git(run.project.root, "-c", "core.hooksPath=/dev/null", *words)
    try:
        # All that DVC notes of a folder of its own is to go with it.
        home = folder.root / ".dvc" / "tmp" / "site"
        local = f'[cache]\n    dir = "{run.objects}"\n[core]\n    site_cache_dir = "{home}"\n'
        (folder.root / ".dvc" / "config.local").write_text(local, encoding="utf-8")
        if not _is_of_this_version(sealed):
            upgrade.apply(folder)
            params_file.edit(folder.params, {"dayfold": __version__})
        if run.options.threads is not None:
            params_file.edit(folder.params, {"train.threads": run.options.threads})
        for file in sorted((folder.data / "images").glob("*.dvc")):
            for day, key in cache.pins(file.read_bytes(), folder.name(file)):
                # A whole folder by one link: its images are read only.
                folder.images(day).symlink_to(_images(run, day, key).resolve())
        _lay_out_parent(run, sealed, folder, parent)
        yield folder
    finally:
        with run.lock:
            _remove(run.project, folder.root)


def _images(run: _Run, day: str, key: str) -> Path:
    """The folder of a day's images: the project's, or one of what DVC has or fetches."""
    own, fetched = run.project.images(day), run.project.rebuilt / "images" / day
    with run.lock:
        if own.is_dir() or fetched.is_dir():
            return own if own.is_dir() else fetched
        with suppress(ToolError):
            tracking = run.project.name(chain.tracking(run.project, day))
            vcs.dvc(run.project.root, "fetch", "--quiet", tracking)
        try:
            cache.lay_out(run.objects, key, fetched)
        except KeyError:
            shutil.rmtree(fetched, ignore_errors=True)
            raise CycleError(
                f"images of {day} can be had neither here nor from a remote",
                mend="dayfold check says what to do",
            ) from None
    return fetched


def _lay_out_parent(run: _Run, sealed: Sealed, folder: Project, parent: Path | None) -> None:
    """Give a day its parent: the one just made, an origin of its seed, or the recorded one."""
    if parent is not None:
        parent.rename(folder.parent)
    elif run.options.from_scratch and sealed.params["origin"]["weights"] == "random":
        from dayfold.learning import origin

        params = params_file.read(folder.params)
        origin.write(folder, "random", seed=params.seed, classes=params.origin.classes)
    else:
        key = sealed.parent_pin.md5
        remotes.bring_folder(run.project.root, key, folder.parent, objects=run.objects)


def _compared(run: _Run, sealed: Sealed, folder: Project, since: str) -> Rebuilt:
    if not _is_of_this_version(sealed):
        return compare_figures(sealed, folder)
    [model] = [pin.md5 for pin in sealed.outs("train") if pin.path == folder.name(folder.model)]
    result = compare(sealed, folder, run.objects, inherited=since)
    if result.bits or cache.object_path(run.objects, model).exists():
        return result
    with suppress(ToolError):  # with the recorded model it can be told by how much it differs
        remotes.bring(run.project.root, model, objects=run.objects)
    return compare(sealed, folder, run.objects, inherited=since)


def _restore(sealed: Sealed, folder: Project) -> None:
    """Put what the cache lacks of an identical day back into it: outputs, and the parent."""
    targets = list(sealed.lock)
    pins = folder.parent.with_suffix(".dvc")
    if cache.pins(pins.read_bytes(), folder.name(pins)) == [sealed.parent_pin]:
        targets.append(folder.name(pins))
    vcs.dvc(folder.root, "commit", "--quiet", "--force", *targets)


def _hand_on(folder: Project, to: Path) -> None:
    """Move what a day hands on to the next one into the new folder `to`."""
    to.mkdir(parents=True)
    for made, kept in folder.handed_on().items():
        made.rename(to / kept.name)


def clear(project: Project) -> None:
    """Remove what a killed `dayfold reproduce` left behind."""
    with worktrees(project):
        pass


@contextmanager
def worktrees(project: Project) -> Iterator[None]:
    """Let one process at a time make worktrees; none is left, however the block ends.

    What a kill left behind is removed first.
    """
    with only_one(project.scratch / "reproduce.lock", "reproducing"):
        _clear(project)
        try:
            project.rebuilt.mkdir(parents=True)
            yield
        finally:
            _clear(project)


def leftovers(project: Project) -> list[str]:
    """Return the worktrees that a killed `dayfold reproduce` left behind."""
    said = vcs.git(project.root, "worktree", "list", "--porcelain")
    folders = [line.removeprefix("worktree ") for line in said.splitlines()]
    return sorted(one for one in folders if one.startswith(f"{project.rebuilt}/"))


def _remove(project: Project, folder: Path) -> None:
    """Remove one worktree, and git's note of it; a link to images is removed, never followed."""
    shutil.rmtree(folder, ignore_errors=True)
    vcs.git(project.root, "worktree", "remove", "--force", str(folder))


def _clear(project: Project) -> None:
    """Remove all worktrees of `dayfold reproduce`, and git's notes of them, and no others."""
    for folder in leftovers(project):
        _remove(project, Path(folder))
    shutil.rmtree(project.rebuilt, ignore_errors=True)
