"""Fixtures of several test files."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.nodeid import NodeId
from hypothesis import settings

import warm  # isort: skip - before dayfold asks which Python this is

import builders
import touched
from builders import DAYS, NO_GATE, RealProject, make_project, open_day
from dayfold import demo
from dayfold.project import params, vcs
from dayfold.project.layout import Project

Shell = Callable[..., str]

# A busy machine must not fail a property that holds.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "only the test files that a change since COMMIT touches (see touched.py)"
    parser.addoption("--touched", metavar="COMMIT", help=text)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    commit = config.getoption("--touched")
    if not commit or not collection_path.match("test_*.py"):
        return None
    return not touched.is_touched(collection_path, touched.changed(commit)) or None


# Begun first, so that no worker has one of them left when the others are done.
LONG = ("test_shown", "test_demo", "test_tutorial", "test_erasing", "test_lifeline")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """For xdist: what a module makes for several tests is made by one worker; the long go first."""
    if not hasattr(config, "workerinput"):
        return

    def place(item: pytest.Item) -> int:
        slow = item.get_closest_marker("slow") is not None
        return 0 if item.path.stem in LONG and slow else 1 if slow else 2

    for item in items:
        found = item._fixtureinfo.name2fixturedefs.items()
        shared = [name for name, made in found if made[-1].scope == "module"]
        if names := sorted(set(shared) - {"chromium"}):
            group = f"{item.path.stem} {names[-1]}"
            item.add_marker(pytest.mark.xdist_group(group))
            # What xdist 3.8 does with the mark has no effect since pytest 9.2 (its issue 1386).
            item._id = NodeId.parse(f"{item.nodeid}@{group}")
            assert item.nodeid.endswith(group)
    items.sort(key=place)


@pytest.fixture(autouse=True)
def _cold(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the marker `cold`, commands start as they are installed (see warm.py)."""
    if request.node.get_closest_marker("cold"):
        monkeypatch.setenv(warm.COLD, "1")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "project")


@pytest.fixture
def receiving(tmp_path: Path) -> Project:
    """A project with DAYS[0] open; git is there, and nothing trains."""
    made = make_project(tmp_path / "project")
    vcs.git(made.root, "init", "--quiet")
    open_day(made, DAYS[0])
    return made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "given"
    made.mkdir()
    return made


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shell() -> Shell:
    return builders.shell


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Have a folder filled once a run, by the first worker that asks; a worker gets a copy."""

    def made(name: str, make: Callable[[Path], None]) -> Path:
        base = tmp_path_factory.getbasetemp()
        shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"once-{name}"
        with shared.with_suffix(".lock").open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.seek(0)
            if lock.read() != "made":
                shared.mkdir()
                make(shared)
                lock.write("made")
        mine = tmp_path_factory.mktemp(name) / name
        return Path(shutil.copytree(shared, mine, symlinks=True))

    return made


@pytest.fixture(scope="session")
def digits(once: Callable[..., Path]) -> Path:
    """The demo's digits as <day>/<class>/<image>.png."""
    return once("digits", demo.write_digits)


def write_three_days(folder: Path, shell: Shell, digits: Path) -> None:
    shell(folder, "dayfold", "init", "scans", "--weights", "random", "--image-size", "16")
    project = RealProject(folder / "scans")
    small = {"train.updates": 4, "train.batch_size": 8}
    params.edit(project.params, {**small, "train.threads": 1, "replay.size": 100})
    # Trained so little, no day would pass.
    params.edit(project.params, NO_GATE)
    one, two, three = demo.DAYS[:3]
    project.dayfold("add", str(digits / one), "--day", one)
    project.dvc("repro")
    project.dayfold("seal", "-m", "the first day")
    project.dayfold("add", "--day", two)
    shutil.copytree(digits / two, project.images(two), dirs_exist_ok=True)
    project.dvc("repro")
    project.dayfold("seal")
    archive = folder / "archive"
    for day in (one, two, three):
        shutil.copytree(digits / day, archive / day)
    (archive / three / "0").mkdir(exist_ok=True)
    (archive / three / "0" / "page.png").write_text("<html>")
    # As if a backfill had been interrupted after the images of the third day were in.
    project.dayfold("add", str(archive / three), "--day", three, code=4)
    said = project.dayfold("run", str(archive), "--allow-refused")
    (folder / "backfill.log").write_text(said)


@pytest.fixture(scope="session")
def three_days(once: Callable[..., Path], shell: Shell, digits: Path) -> RealProject:
    """A real project with three sealed days, each come to in another way. Not to be changed."""
    return RealProject(once("history", lambda to: write_three_days(to, shell, digits)) / "scans")


def copied(source: str, target: str) -> None:
    """Copy a file, but link models and what DVC's cache has: never written anew, half of it all."""
    is_fixed = "/.dvc/cache/" in source or source.endswith("model.safetensors")
    os.link(source, target) if is_fixed else shutil.copy2(source, target)


@pytest.fixture
def copy(three_days: RealProject, tmp_path: Path) -> RealProject:
    """A copy of the three days, to be changed at will; who damages cache or model unlinks first."""
    root = tmp_path / "scans"
    # Without the squares that were kept of images: a third of the files, and soon made again.
    left_out = shutil.ignore_patterns("squares")
    shutil.copytree(three_days.root, root, symlinks=True, copy_function=copied, ignore=left_out)
    return RealProject(root)


@pytest.fixture(scope="session")
def share(shell: Shell) -> Callable[[Project, Path, str], RealProject]:
    """Copy a project into a folder, beside the git and the DVC remote that it is pushed to."""

    def made(project: Project, folder: Path, store: str) -> RealProject:
        copy = RealProject(shutil.copytree(project.root, folder / "scans", symlinks=True))
        shell(folder, "git", "init", "--quiet", "--bare", "shared.git")
        copy.git("remote", "add", "origin", "../shared.git")
        # Days of before there was a remote know it only from this machine's own settings.
        for words in ((), ("--local",)):
            copy.dvc("remote", "add", *words, "-d", "store", store)
        copy.git("commit", "--quiet", "--all", "--message", "Share by a folder")
        copy.dvc("push", "--all-tags")
        branch = vcs.branch(copy.root)
        copy.git("push", "--quiet", "-u", "origin", branch, "--tags")
        vcs.git(folder / "shared.git", "symbolic-ref", "HEAD", f"refs/heads/{branch}")
        return copy

    return made


# Nothing that a browser does on its own account, and nothing of a person's own profile.
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium, driven by selenium, that logs its console and its requests."""
    found = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(found) and "CI" not in os.environ:
        pytest.skip("no Chromium here: apt install chromium chromium-driver")
    assert all(found), "CI is set, so the pages must be looked at: install chromium-driver"
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    for word in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(found[1]))
    yield driver
    driver.quit()
