"""A sealed day laid out in a temporary git worktree, ready to be made again beside the project."""

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from types import FrameType

from dayfold.errors import CycleError, ToolError
from dayfold.learning import origin
from dayfold.project import cache, lifeline, vcs
from dayfold.project import params as params_file
from dayfold.project.files import only_one
from dayfold.project.layout import STAGES, Project
from dayfold.proof.record import Sealed

LOG = "dayfold-log.txt"  # what the stages of a day print, in its worktree
TAIL = 3  # lines of it that are shown where a stage fails


@dataclass
class Bench:
    """The folder of the worktrees. Images come by link: from data/images, or else from the cache.

    `empty_cache`: nothing is taken from DVC's cache but what nothing else can give, an origin that
    is not made from the seed.
    """

    project: Project
    cache: Path
    empty_cache: bool = False
    _running: set["subprocess.Popen[bytes]"] = field(default_factory=set)
    _stopped: bool = False
    _lock: Lock = field(default_factory=Lock)

    @property
    def root(self) -> Path:
        """Where everything lies that goes away afterwards."""
        return self.project.rebuilt

    @contextmanager
    def day(self, sealed: Sealed, before: list[str], parent: Path | None) -> Iterator[Project]:
        """Lay a day out: its own params, manifest and dvc.lock, its images, its parent, no outputs.

        `before` are the days of its history, itself too; `parent` a folder of the parent's files,
        by default what the day recorded. Raises CycleError where images or parent cannot be had.
        """
        folder = Project(self.root / sealed.day)
        words = ("worktree", "add", "--quiet", "--detach", str(folder.root), vcs.TAG + sealed.day)
        with self._lock:
            # No hooks: DVC's own would check out every image and model.
            vcs.git(self.project.root, "-c", "core.hooksPath=/dev/null", *words)
        try:
            for out in sealed.outs():
                (folder.root / out.path).unlink(missing_ok=True)
            # The project's images may be links of DVC's into this cache (cache.type symlink).
            local = folder.root / ".dvc" / "config.local"
            local.write_text(f'[cache]\n    dir = "{self.cache}"\n', encoding="utf-8")
            for day in before:
                self._lay_out_images(folder, day)
            if parent is not None:
                for name in (folder.parent_model.name, folder.parent_predictions.name):
                    cache.link(parent / name, folder.parent / name)
            elif self.empty_cache and sealed.params["origin"]["weights"] == "random":
                params = params_file.read(folder.params)
                origin.write(folder, "random", seed=params.seed, classes=params.origin.classes)
            else:
                self._lay_out(folder, sealed.parent_pin.md5, folder.parent)
            yield folder
        finally:
            with self._lock:
                remove(self.project, folder.root)

    def _lay_out_images(self, folder: Project, day: str) -> None:
        own, shared = self.project.images(day), self.root / "images" / day
        with self._lock:
            if not own.is_dir() and not shared.is_dir():
                pin = _pin(folder, day)
                if pin is None:
                    return  # a day of corrections only
                self._lay_out(folder, pin, shared)
        # A whole folder by one link: its images are read only.
        folder.images(day).symlink_to((own if own.is_dir() else shared).resolve())

    def _lay_out(self, folder: Project, key: str, target: Path) -> None:
        """Make a folder of what the cache has of it, fetched from the remote where it is not."""
        part = target.with_name(f".{target.name}.part")
        for attempt in range(2):
            shutil.rmtree(part, ignore_errors=True)
            try:
                cache.lay_out(self.cache, key, part)
            except KeyError:
                if attempt or not self.fetch(folder, *_tracked(folder)):
                    what = "its parent" if target == folder.parent else f"images of {target.name}"
                    raise CycleError(
                        f"{what} can be had neither here nor from a remote",
                        mend="dayfold verify says what to do",
                    ) from None
            else:
                shutil.rmtree(target, ignore_errors=True)
                part.rename(target)
                return

    def fetch(self, folder: Project, *targets: str) -> bool:
        """Have DVC fetch what the day's files pin into the project's cache, if a remote can."""
        for name in ("config", "config.local"):  # today's remotes: the day may have had none
            path = self.project.root / ".dvc" / name
            if path.exists():
                text = _with_whole_paths(path.read_text(encoding="utf-8"), path.parent)
                (folder.root / ".dvc" / name).write_text(text, encoding="utf-8")
        try:
            vcs.dvc(folder.root, "cache", "dir", "--local", str(self.cache))
            vcs.dvc(folder.root, "fetch", "--quiet", *targets)
        except ToolError:
            return False
        return True

    def run(self, folder: Project, stages: Sequence[str] = STAGES) -> str:
        """Run the six stages as `dvc repro` does, by their commands; return what failed, if any."""
        for stage in stages:
            with (folder.root / LOG).open("ab") as log, ExitStack() as ending:
                with self._lock:
                    if self._stopped:
                        return "interrupted"
                    process = subprocess.Popen(
                        ["dayfold", stage],
                        cwd=folder.root,
                        # As of DVC: a stage ends with what started it.
                        env={**vcs.environment(), lifeline.DVC_STAGE: stage},
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                    )
                    self._running.add(process)
                ending.callback(self._running.discard, process)
                code = process.wait()
            if code:
                said = (folder.root / LOG).read_text(encoding="utf-8", errors="replace")
                lines = [line for line in said.splitlines() if line.strip()][-TAIL:]
                return f"{stage} failed (exit code {code}): " + " ".join(lines)
        return ""

    def stop(self) -> None:
        """End every stage that runs, and begin none."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()


def _with_whole_paths(config: str, home: Path) -> str:
    """A DVC config whose relative paths, which begin at its own folder, hold elsewhere too."""

    def whole(found: re.Match[str]) -> str:
        path = found["path"].strip("\"'")
        if re.match(r"\w+://|~", path):
            return found[0]
        return f"{found['key']}{(home / path).resolve()}"

    key = r"url|credentialpath|configpath|keyfile|cert_path|key_path|gdrive_\w+_(?:file|path)"
    return re.sub(rf"(?m)^(?P<key>\s*(?:{key})\s*=\s*)(?P<path>.+?)\s*$", whole, config)


def _pin(folder: Project, day: str) -> str | None:
    for path in (folder.tracked(day), folder.tracked_month(day)):
        for pin in cache.pins(path.read_bytes(), folder.name(path)) if path.exists() else []:
            if pin.path == day:
                return pin.md5
    return None


def _tracked(folder: Project) -> list[str]:
    """The .dvc files of a worktree: of its images and its parent."""
    files = [*(folder.data / "images").glob("*.dvc"), folder.parent.with_suffix(".dvc")]
    return sorted(folder.name(path) for path in files)


@contextmanager
def bench(project: Project, *, empty_cache: bool) -> Iterator[Bench]:
    """Give a bench to one process at a time; nothing of it is left, however the block ends.

    What a kill left behind is removed by the next one.
    """
    with only_one(project.scratch / "reproduce.lock", "reproducing"), _ending_on_a_signal():
        clear(project)
        made = Bench(project, cache.folder(project.root), empty_cache)
        try:
            project.rebuilt.mkdir(parents=True)
            yield made
        finally:
            made.stop()
            clear(project)


@contextmanager
def _ending_on_a_signal() -> Iterator[None]:
    """Take a polite end (SIGTERM, SIGHUP) as Ctrl-C, so that what was made is removed."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before: dict[signal.Signals, signal._HANDLER] = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leftovers(project: Project) -> list[str]:
    """Return the worktrees that a killed `dayfold reproduce` left behind."""
    said = vcs.git(project.root, "worktree", "list", "--porcelain")
    folders = [line.removeprefix("worktree ") for line in said.splitlines()]
    return sorted(one for one in folders if one.startswith(f"{project.rebuilt}/"))


def remove(project: Project, folder: Path) -> None:
    """Remove one worktree, and git's note of it; a link to images is removed, never followed."""
    shutil.rmtree(folder, ignore_errors=True)
    vcs.git(project.root, "worktree", "remove", "--force", str(folder))


def clear(project: Project) -> None:
    """Remove all worktrees of `dayfold reproduce`, and git's notes of them, and no others."""
    for folder in leftovers(project):
        remove(project, Path(folder))
    shutil.rmtree(project.rebuilt, ignore_errors=True)
