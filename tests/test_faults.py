"""A disk that fails at any single write, fsync or rename costs one line, and no day."""

import errno
import os
import shutil
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from builders import DAYS, ROOT, make_project, open_day, place
from dayfold import cli
from dayfold.learning import checkpoint
from dayfold.ledger.intake import workers
from dayfold.project import params, vcs
from dayfold.project.files import PART, sha256_file
from dayfold.project.layout import Project
from faults import Disk

DAY = DAYS[0]
COMMANDS = (("add", "../in", "--day", DAY), ("snapshot",), ("weights",), ("replay",))


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


def error_of(number: int) -> int:
    return (errno.ENOSPC, errno.EIO)[number % 2]


def test_the_nth_failing_write_fsync_or_rename_costs_one_line(
    opened, monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(opened.root)
    total, unnoted = 0, 0
    with Disk() as disk:
        for words in COMMANDS:
            before = shutil.copytree(opened.data, tmp_path / words[0])
            disk.count, disk.fails_at = 0, 0
            assert run(words, capsys) == (0, "")
            whole, steps = made(opened), disk.count
            total += steps
            for number in range(1, steps + 1):
                shutil.rmtree(opened.data)
                shutil.copytree(before, opened.data)
                disk.count, disk.fails_at, disk.error = 0, number, error_of(number)
                code, said = run(words, capsys)
                is_full = disk.error == errno.ENOSPC
                if code == 0:  # on a full disk it is not noted what was looked at
                    assert (is_full, said, made(opened)) == (True, "", whole), number
                    unnoted += 1
                    continue
                assert len(said.splitlines()) == 1
                assert os.strerror(error_of(number)) in said
                assert str(opened.root) in said  # the file that was meant
                assert ("free some space, and run the command again" in said) == is_full
                assert not list(opened.data.rglob(f".*{PART}"))
                # What stood before this command is whole: by the same command all is made.
                assert run(words, capsys) == (0, ""), number
                assert made(opened) == whole, number
    # A write, two fsyncs and a rename a table; images are renamed here, and written by workers.
    assert total >= 4 * 6 + 3
    assert unnoted == 2


# A worker on such a disk.
PROGRAM = """
import sys
sys.path.append({tests!r})
from dayfold.ledger.intake import workers
from faults import Disk
with Disk() as disk:
    disk.fails_at, disk.error = {number}, {error}
    workers.main()
"""


# A write, two fsyncs and two renames an image; a write each of an archive's before.
@pytest.mark.parametrize(("source", "steps"), [("in", 5), ("in.zip", 3 + 5)])
def test_the_nth_failing_step_of_a_worker_adds_nothing(
    opened, monkeypatch, capsys, tmp_path, source, steps
):
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for path in sorted((tmp_path / "in").rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path / "in"))
    add = ("add", str(tmp_path / source), "--day", DAY)
    monkeypatch.chdir(opened.root)
    begin, program = made(opened), tmp_path / "worker.py"
    for number in range(1, steps + 1):
        words = {"tests": str(Path(__file__).parent), "number": number, "error": error_of(number)}
        program.write_text(PROGRAM.format(**words))
        with monkeypatch.context() as patched:
            patched.setattr(workers, "_PROGRAM", program)
            workers.end_idle()
            code, said = run(add, capsys)
            workers.end_idle()
        assert code == 1, number
        assert len(said.splitlines()) == 1, said
        assert os.strerror(error_of(number)) in said
        assert made(opened) == begin, number
    assert run(add, capsys) == (0, "")
    assert len(list(opened.images(DAY).glob("*/*"))) == 3


def failing_steps(
    command: str, results: Sequence[Path], capsys: pytest.CaptureFixture[str]
) -> set[str]:
    """Fail a stage of a real day at every third step, and run it again; what it said meanwhile.

    A file's are its write, an fsync, the rename and an fsync: so each fails at one of them.
    """
    said_of_it = set()
    assert run((command,), capsys)[0] == 0  # it keeps squares, which a full disk does not stop
    with Disk() as disk:
        assert run((command,), capsys)[0] == 0
        steps, whole = disk.count, [sha256_file(path) for path in results]
        for number in range(1, steps + 1, 3):
            disk.count, disk.fails_at, disk.error = 0, number, errno.ENOSPC
            code, said = run((command,), capsys)
            lines = said.splitlines()
            assert len(lines) == 1, (number, said)
            assert "No space left on device" in said
            said_of_it.add(lines[0].partition(":")[0] if code else "goes on")
            if code:
                assert run((command,), capsys)[0] == 0
            assert [sha256_file(path) for path in results] == whole, number
            assert not list(Path.cwd().rglob(f".*{PART}"))
    return said_of_it


@pytest.mark.slow
def test_a_day_is_the_same_after_any_failing_step_of_its_figures_and_its_training(
    copy, monkeypatch, capsys
):
    monkeypatch.chdir(copy.root)
    for command in ("evaluate", "curve"):
        failing_steps(command, [copy.predictions, copy.metrics], capsys)
    assert vcs.git(copy.root, "status", "--porcelain") == ""
    assert vcs.stale(copy.root) == []
    # A checkpoint after the first of two updates.
    params.edit(copy.params, {"train.updates": 2})
    monkeypatch.setenv(checkpoint.INTERVAL, "0")
    said = failing_steps("train", [copy.model, copy.plot("training")], capsys)
    # Without a checkpoint the day goes on: it only costs time.
    assert said == {"goes on", "dayfold"}
    assert not list(copy.checkpoints.glob("*"))
