"""What a killed command leaves is repaired by its note, and what has no note is told and left."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout, suppress

import pytest

from dayfold.cycle import opening, sealing
from dayfold.cycle.ready import ready
from dayfold.demo import DAYS
from dayfold.errors import CycleError, ToolError
from dayfold.project import journal, vcs
from dayfold.project.files import PART, only_one
from dayfold.project.journal import Note

pytestmark = pytest.mark.slow
ONE, TWO, THREE, FOUR, FIVE = DAYS[:5]


def killed(project, command="run", **changes) -> None:
    """Leave the note of a command that ended without a word, a second ago."""
    journal.write(project, Note(command, time.time() - 1)._replace(**changes))


def begun(project) -> list[str]:
    """Begin a command, and return what it says before it works."""
    with redirect_stdout(io.StringIO()) as said, ready(project, "test"):
        pass
    assert journal.read(project) is None
    return said.getvalue().splitlines()


def holding(project, process) -> str:
    """The rwlock of DVC's that this process holds."""
    holder = {"pid": process, "cmd": "dvc/__main__.py repro"}
    return json.dumps({"write": {str(project.metrics): holder}})


def test_a_truncated_dvc_lock_is_that_of_the_last_commit_again_or_else_removed(copy, monkeypatch):
    whole = copy.dvc_lock.read_bytes()
    for keep in (0.0, 0.3, 0.7):
        # In the middle of a line: "md5:" without a value.
        end = whole.index(b"md5: ", int(keep * len(whole) * 0.9)) + 4 if keep else 0
        killed(copy)
        copy.dvc_lock.write_bytes(whole[:end])
        [said] = begun(copy)
        assert "dvc.lock is half written: that of the last commit is back" in said
        assert copy.dvc_lock.read_bytes() == whole
    # An rwlock that DVC is just writing is not broken.
    path = copy.root / ".dvc" / "tmp" / "rwlock"
    path.write_text("")
    with monkeypatch.context() as patched:
        patched.setattr(journal.time, "sleep", lambda _: path.write_text("{}"))
        assert journal.half_done(copy) == []
    vcs.git(copy.root, "rm", "--quiet", "--cached", "dvc.lock")
    vcs.git(copy.root, "commit", "--quiet", "-m", "as before the first seal")
    killed(copy)
    copy.dvc_lock.write_text("schema: '2.0'\nstages:\n  snapshot:\n    cmd: dayfold snap")
    assert "removed; dvc repro makes it again" in begun(copy)[0]
    assert not copy.dvc_lock.exists()


def test_an_rwlock_that_dvc_fails_on_is_removed_and_every_other_left_to_dvc(copy, capfd):
    assert journal.half_done(copy) == []
    path = copy.root / ".dvc" / "tmp" / "rwlock"
    for content in ("", '{"write": {"/data', "null"):
        killed(copy)
        path.write_text(content)
        assert begun(copy) == ["dayfold run was killed: .dvc/tmp/rwlock is broken: removed"]
    reading = holding(copy, os.getpid()).replace(': {"pid', ': [{"pid').replace("}}}", "}]}}")
    for locked in (holding(copy, os.getpid()), reading.replace("write", "read")):
        killed(copy)
        path.write_text(locked)
        [said] = begun(copy)
        assert f".dvc/tmp/rwlock names process {os.getpid()}, which is another program now" in said
        assert not path.exists()
    python = f"{sys.prefix}/bin/python"  # it has this command line from the start
    running = subprocess.Popen([python, "-c", "input()", "dvc"], stdin=subprocess.PIPE)
    path.write_text(holding(copy, running.pid))
    with pytest.raises(CycleError, match=rf"dvc \(process {running.pid}\) is at work"):
        begun(copy)
    with pytest.raises(
        ToolError, match=rf"DVC is at work in this project \(process {running.pid}\)"
    ):
        vcs.repro(copy.root, print)
    assert "is busy" not in capfd.readouterr().err
    with pytest.raises(ToolError, match=rf"did not begin: .* \(process {running.pid}\)"):
        vcs.dvc(copy.root, "commit", "--force")
    running.stdin.close()
    os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)  # its exit code is not collected
    killed(copy)
    [said] = begun(copy)
    assert f"names process {running.pid}, which is another program now, or has ended" in said
    running.wait()
    assert begun(copy) == []
    killed(copy)
    path.write_text("")
    copy.dvc("repro", code=255)
    assert f"opened {FOUR}" in copy.dayfold("add", "--day", FOUR)


def test_what_no_note_covers_is_told_with_its_age_and_left(copy):
    # Older than the killed command, or without one: somebody else's.
    rwlock, lock = copy.root / ".dvc" / "tmp" / "rwlock", copy.root / ".git" / "index.lock"
    part = copy.data / f".abc{PART}"
    for path in (rwlock, lock, part):
        path.write_text("")
        os.utime(path, (time.time() - 300, time.time() - 300))
    whole = copy.dvc_lock.read_bytes()
    copy.dvc_lock.write_bytes(whole[:100])
    os.utime(copy.dvc_lock, (time.time() - 300, time.time() - 300))
    for note in (False, True):
        if note:
            killed(copy, step="seal", step_began=time.time() - 1)
        said = begun(copy)
        assert len(said) == 4
        assert all(
            "since 5 min; dayfold did not begin it, so it was left alone" in line for line in said
        )
        assert rwlock.exists()
        assert lock.exists()
        assert part.exists()
        assert copy.dvc_lock.read_bytes() == whole[:100]
    assert copy.dayfold("check", code=1).count("FIX   half done") == 4
    assert copy.dayfold("check", "--fix").count("fixed half done") == 4
    assert journal.half_done(copy) == []
    assert copy.dvc_lock.read_bytes() == whole


def test_a_lock_of_gits_is_removed_only_where_the_killed_step_had_called_git(copy, monkeypatch):
    lock = copy.root / ".git" / "index.lock"
    for step, began in (("", 0.0), ("seal", time.time() - 1000)):
        killed(copy, step=step, step_began=began)
        lock.touch()
        assert "was left alone" in begun(copy)[0]
        assert "wait: git may be at work" in copy.dayfold("check", "--fix", code=1)
        assert lock.exists()
    # Of before the clock was put back: no lock that was written just now.
    os.utime(lock, (time.time() + 86400, time.time() + 86400))
    assert "fixed half done" in copy.dayfold("check", "--fix")
    assert not lock.exists()
    git = subprocess.Popen(["git", "cat-file", "--batch"], cwd=copy.root, stdin=subprocess.PIPE)
    killed(copy, step="seal", step_began=time.time() - 1)
    lock.touch()
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        git.stdin.close()

    monkeypatch.setattr("dayfold.cycle.ready.say", say)
    with ready(copy, "test"):
        pass
    git.wait()
    waited, removed = said
    assert waited.startswith("waiting for git (process")
    assert removed == "dayfold run was killed: git holds .git/index.lock: removed"
    vcs.git(copy.root, "add", "dvc.lock")


def test_half_written_files_are_removed_and_other_hidden_ones_and_later_days_stay(copy):
    opening.open_day(copy, FOUR)
    killed(copy)
    (copy.images(FOUR) / "cyst").mkdir()
    part = copy.images(FOUR) / "cyst" / f".abc{PART}"
    mine = copy.images(FOUR) / "cyst" / ".hidden"
    of_dvc = copy.data / ".Z4z77wRNoSkI9ylOcY0v1A.tmp"
    whole = copy.tracked(FOUR).read_text()
    for path in (part, mine, copy.data / f".def{PART}", of_dvc):
        path.write_text("half")
    copy.tracked(FOUR).write_text(whole[:20])
    *said, made_again = begun(copy)
    assert made_again.endswith("is half written: made again")
    assert [line.endswith("is half written: removed") for line in said] == [True] * 3
    assert journal.half_done(copy) == []
    assert not of_dvc.exists()
    assert not part.exists()
    assert mine.exists()
    image = copy.images(FIVE) / "cyst" / "1.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"mine")
    opening.corrections.write_empty(copy, FIVE)
    copy.tracked(FIVE).write_text(f"outs:\n- md5: {'0' * 32}.dir\n  path: {FIVE}\n")
    begun(copy)
    assert image.read_bytes() == b"mine"
    assert copy.tracked(FIVE).exists()
    assert copy.corrections(FIVE).exists()


class Killed(BaseException):
    """As a kill ends a function: nothing after it is done, not even on the way out."""


def stop(*_: object, **__: object) -> None:
    raise Killed


def test_the_opening_of_a_day_is_finished_after_a_kill(copy, monkeypatch):
    before, status = copy.model.read_bytes(), vcs.git(copy.root, "status", "--porcelain")
    for at in ("write_empty", "inherit", "put_in_index", "edit"):
        place = {"write_empty": opening.corrections, "edit": opening.params_file}.get(at, opening)
        with monkeypatch.context() as patched, suppress(Killed), ready(copy, "add"):
            patched.setattr(place, at, stop)
            opening.open_day(copy, FOUR)
        assert begun(copy) == [f"dayfold add was killed: {FOUR} is open"]
        assert copy.parent_model.read_bytes() == before
        assert vcs.stale(copy.root, "data/parent.dvc", copy.name(copy.tracked(FOUR))) == []
        copy.dayfold("undo", "--yes")
        assert vcs.git(copy.root, "status", "--porcelain") == status


def test_an_opening_is_not_finished_upon_what_was_made_or_checked_out_since(copy):
    params = copy.params.read_text()
    for parent, reason in ((TWO, f"the last day is {THREE} now."), (THREE, "not as it was sealed")):
        if parent == THREE:
            copy.predictions.unlink()
            copy.predictions.write_text("made again")
        killed(copy, "add", step="open", facts={"day": FOUR, "parent": parent})
        [said] = begun(copy)
        assert f"{FOUR} was not opened: " in said
        assert reason in said
        assert copy.params.read_text() == params
        assert not copy.corrections(FOUR).exists()


def test_an_undo_of_an_open_day_is_finished_after_a_kill(copy, monkeypatch):
    before = vcs.git(copy.root, "status", "--porcelain")
    for number, at in enumerate(("_move", "restore_files", "edit", "checkout"), start=1):
        opening.open_day(copy, FOUR)
        (copy.images(FOUR) / "cyst").mkdir()
        (copy.images(FOUR) / "cyst" / "1.png").write_bytes(b"mine")
        with monkeypatch.context() as patched, suppress(Killed), ready(copy, "undo"):
            patched.setattr(opening.params_file if at == "edit" else opening, at, stop)
            sealing.undo(copy, yes=True)
        begun(copy)
        undone = copy.undone(FOUR if number == 1 else f"{FOUR}-{number}")
        assert (undone / "images" / FOUR / "cyst" / "1.png").read_bytes() == b"mine"
        assert vcs.git(copy.root, "status", "--porcelain") == before
    assert f"{THREE}, sealed" in copy.dayfold("status")


@pytest.mark.cold
def test_one_command_works_at_a_time_and_none_beside_dvc_repro(copy):
    with only_one(copy.cycle_lock, "testing"):
        said = copy.dayfold("add", "--day", FOUR, code=1)
    assert "Another process is at work in this project (process " in said
    repro = subprocess.Popen(
        ["dvc", "repro", "--force"],
        cwd=copy.root,
        env=vcs.environment(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert any(line.startswith("Running stage") for line in repro.stdout)
        said = copy.dayfold("add", "--day", FOUR, code=1)
    finally:
        os.killpg(repro.pid, signal.SIGKILL)
        repro.communicate()
    assert "is at work in this project" in said
    assert "wait for it, or stop it; then run the command again" in said


@pytest.mark.cold
def test_a_read_only_project_is_refused_before_any_work(copy, tmp_path):
    mount = ["unshare", "--mount", "--map-root-user"]
    if subprocess.run([*mount, "true"], capture_output=True).returncode:
        pytest.skip("no right to mount here")
    source = tmp_path / "in"
    (source / "cyst").mkdir(parents=True)
    command = (
        f"mount --bind {copy.root} {copy.root} && mount -o remount,ro,bind {copy.root} && "
        f"cd {copy.root} && dayfold add {source} --day {FOUR}"
    )
    said = copy.shell(*mount, "sh", "-c", command, code=1)
    assert said == f"dayfold: Read-only file system: {copy.cycle_lock}\n"
