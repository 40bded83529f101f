"""A disk that fails at any single write, fsync or rename costs one line, and no day."""

import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from builders import DAYS, ROOT, make_project, open_day, place
from dayfold import cli
from dayfold.project import vcs
from dayfold.project.files import PART
from dayfold.project.layout import Project

DAY = DAYS[0]
COMMANDS = (
    ("add", "../in", "--day", DAY),
    ("snapshot",),
    ("weights",),
    ("replay",),
)


class Disk:
    """Counts what is asked of the disk under a folder, and fails at the n-th."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.fails_at, self.error = 0, 0, errno.EIO
        write, fsync, rename = os.fdopen, os.fsync, os.replace
        monkeypatch.setattr(os, "fdopen", self._failing_file(write))
        monkeypatch.setattr(os, "fsync", self._failing(fsync))
        monkeypatch.setattr(os, "replace", self._failing(rename))

    def step(self) -> None:
        self.count += 1
        if self.count == self.fails_at:
            raise OSError(self.error, os.strerror(self.error))

    def _failing(self, real: Callable[..., object]) -> Callable[..., object]:
        def called(*words: object, **options: object) -> object:
            self.step()
            return real(*words, **options)

        return called

    def _failing_file(self, real: Callable[..., object]) -> Callable[..., object]:
        def opened(descriptor: int, mode: str = "r", *words: object, **options: object) -> object:
            file = real(descriptor, mode, *words, **options)
            if "w" not in mode:
                return file
            try:
                self.step()
            except OSError:
                file.write(b"half")  # so much was still free
                file.close()
                raise
            return file

        return opened


def run(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """A command as a user gives it: its exit code, and what it says of errors."""
    sys.argv = ["dayfold", *words]
    try:
        cli.main()
    except SystemExit as done:
        code = int(done.code or 0)
    return code, capsys.readouterr().err


def made(project: Project) -> dict[str, bytes]:
    return {
        project.name(path): path.read_bytes()
        for path in sorted(project.data.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def opened(tmp_path: Path) -> Project:
    """A project under git whose first day is open, and images to add."""
    project = make_project(tmp_path / "scans", replay__size=2)
    vcs.git(project.root, "init", "--quiet")
    open_day(project, DAY)
    (project.root / ".dvc").mkdir()
    shutil.copy(ROOT / "dvc.yaml", project.dvc_yaml)
    place(tmp_path / "in", "cyst", [1, 2])
    place(tmp_path / "in", "mass", [3])
    return project


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
def test_the_nth_failing_write_fsync_or_rename_costs_one_line(
    opened, monkeypatch, capsys, tmp_path, error
):
    shutil.copytree(opened.root, tmp_path / "begin")
    monkeypatch.chdir(opened.root)
    disk = Disk(monkeypatch)
    disk.error = error
    for words in COMMANDS:
        assert run(words, capsys) == (0, "")
    whole, steps = made(opened), disk.count
    # A write, two fsyncs and a rename a table; images are written by workers, and renamed here.
    assert steps >= 4 * 6 + 3
    for number in range(1, steps + 1):
        shutil.rmtree(opened.data)
        shutil.copytree(tmp_path / "begin" / "data", opened.data)
        disk.count, disk.fails_at = 0, number
        for words in COMMANDS:
            code, said = run(words, capsys)
            if code:
                break
        assert code == 1, number
        assert len(said.splitlines()) == 1
        assert os.strerror(error) in said
        assert str(opened.data) in said  # the file that was meant
        assert not list(opened.data.rglob(f".*{PART}"))
        for words in COMMANDS:
            assert run(words, capsys) == (0, ""), number
        assert made(opened) == whole, number


@pytest.mark.slow
def test_the_day_of_a_real_project_is_the_same_after_any_failing_figure(copy, monkeypatch, capsys):
    monkeypatch.chdir(copy.root)
    disk = Disk(monkeypatch)
    assert run(("curve",), capsys)[0] == 0
    steps = disk.count
    for number in range(1, steps + 1):
        disk.count, disk.fails_at, disk.error = 0, number, errno.ENOSPC
        code, said = run(("curve",), capsys)
        assert (code, len(said.splitlines())) == (1, 1), number
        assert "No space left on device" in said
        assert run(("curve",), capsys)[0] == 0
        assert vcs.git(copy.root, "status", "--porcelain") == ""
    assert vcs.stale(copy.root) == []
