"""What a kill leaves behind is mended by the next command, which says so, and nothing else is."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from dayfold.cycle import opening
from dayfold.demo import DAYS
from dayfold.errors import CycleError
from dayfold.project import healing, vcs
from dayfold.project.files import PART, only_one

pytestmark = pytest.mark.slow
ONE, TWO, THREE, FOUR = DAYS[:4]


def mended(project) -> list[str]:
    said: list[str] = []
    with healing.ready(project, say=said.append):
        pass
    return said


def test_a_project_that_is_whole_is_left_alone(three_days):
    assert healing.wounds(three_days) == []


@pytest.mark.parametrize("content", ["", '{"write": {"/data', "null"])
def test_a_broken_rwlock_is_removed(copy, shell, content):
    (copy.root / ".dvc" / "tmp" / "rwlock").write_text(content)
    shell(copy.root, "dvc", "repro", code=255)
    said = shell(copy.root, "dayfold", "open", FOUR)
    assert "DVC was killed: .dvc/tmp/rwlock is broken: removed" in said
    assert f"{FOUR} is open" in said


@pytest.mark.parametrize("mode", ["write", "read"])
def test_a_lock_whose_process_is_another_program_now_is_removed(copy, shell, mode):
    path = copy.root / ".dvc" / "tmp" / "rwlock"
    holder = {"pid": os.getpid(), "cmd": "dvc/__main__.py repro"}
    locks = {str(copy.metrics): holder if mode == "write" else [holder]}
    path.write_text(json.dumps({mode: locks}))
    copy.metrics.unlink()
    assert "is busy" in shell(copy.root, "dvc", "repro", code=255)
    assert mended(copy) == [
        f"DVC was killed: .dvc/tmp/rwlock names process {os.getpid()}, now another program: removed"
    ]
    shell(copy.root, "dvc", "repro")


def test_a_lock_of_a_dvc_that_runs_or_is_gone_is_left_to_dvc(copy):
    path = copy.root / ".dvc" / "tmp" / "rwlock"
    python = f"{sys.prefix}/bin/python"  # it has this command line from the start
    running = subprocess.Popen([python, "-c", "input()", "dvc"], stdin=subprocess.PIPE)
    holder = {"pid": running.pid, "cmd": "dvc/__main__.py repro"}
    path.write_text(json.dumps({"write": {str(copy.metrics): holder}}))
    assert mended(copy) == []
    running.communicate(b"\n")
    assert mended(copy) == []


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7])
def test_a_truncated_dvc_lock_is_that_of_the_last_commit_again(copy, keep):
    whole = copy.dvc_lock.read_bytes()
    # In the middle of a line: "md5:" without a value.
    end = whole.index(b"md5: ", int(keep * len(whole) * 0.9)) + 4 if keep else 0
    copy.dvc_lock.write_bytes(whole[:end])
    [said] = mended(copy)
    assert said.startswith("DVC was killed: dvc.lock is half written: that of the last commit")
    assert copy.dvc_lock.read_bytes() == whole


def test_a_truncated_dvc_lock_that_no_commit_has_is_removed(copy):
    vcs.git(copy.root, "rm", "--quiet", "--cached", "dvc.lock")
    vcs.git(copy.root, "commit", "--quiet", "-m", "as before the first seal")
    copy.dvc_lock.write_text("schema: '2.0'\nstages:\n  snapshot:\n    cmd: dayfold snap")
    assert "removed; dvc repro makes it again" in mended(copy)[0]
    assert not copy.dvc_lock.exists()


def test_a_lock_of_gits_is_removed_unless_a_git_is_at_work(copy):
    lock = copy.root / ".git" / "index.lock"
    lock.touch()
    git = subprocess.Popen(["git", "cat-file", "--batch"], cwd=copy.root, stdin=subprocess.PIPE)
    try:
        with pytest.raises(CycleError, match=r"git .* is at work in this project") as refused:
            mended(copy)
        assert "git was killed" in refused.value.problems[0]
        assert lock.exists()
    finally:
        git.communicate()
    assert mended(copy) == ["git was killed: .git/index.lock was left: removed"]
    vcs.git(copy.root, "add", "dvc.lock")


def test_half_written_files_are_removed_and_other_hidden_ones_stay(copy):
    opening.open_day(copy, FOUR)
    (copy.images(FOUR) / "cyst").mkdir()
    part = copy.images(FOUR) / "cyst" / f".abc{PART}"
    mine = copy.images(FOUR) / "cyst" / ".hidden"
    for path in (part, mine, copy.data / f".def{PART}"):
        path.write_text("half")
    [said] = mended(copy)
    assert "2 half-written files" in said
    assert not part.exists()
    assert mine.exists()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_day_that_open_had_begun_is_taken_back_and_opens_again(copy, shell, steps):
    before = vcs.git(copy.root, "status", "--porcelain")
    parent = copy.parent_model.read_bytes()
    copy.images(FOUR).mkdir()
    opening.corrections.write_empty(copy, FOUR)
    if steps > 1:
        opening.fold_into_month(copy, THREE)
        opening.inherit(copy)
    if steps > 2:
        vcs.dvc(copy.root, "add", "--quiet", "data/parent", copy.name(copy.images(FOUR)))
    [said] = mended(copy)
    assert said == f"`dayfold open` of {FOUR} was killed: taken back; give the command again"
    assert vcs.git(copy.root, "status", "--porcelain") == before
    assert copy.parent_model.read_bytes() == parent
    assert vcs.stale(copy.root) == []
    assert f"{FOUR} is open" in shell(copy.root, "dayfold", "open", FOUR)
    assert healing.wounds(copy) == []


def test_a_folder_of_a_later_day_with_images_is_never_taken_back(copy):
    image = copy.images(FOUR) / "cyst" / "1.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"mine")
    opening.corrections.write_empty(copy, FOUR)
    mended(copy)
    assert image.read_bytes() == b"mine"


def test_a_half_written_dvc_file_is_made_again(copy, shell):
    shell(copy.root, "dayfold", "open", FOUR)
    whole = copy.tracked(FOUR).read_text()
    copy.tracked(FOUR).write_text(whole[:20])
    assert "made again" in mended(copy)[0]
    assert copy.tracked(FOUR).read_text() == whole


def test_one_command_at_a_time_works_in_a_project(copy, shell):
    with only_one(copy.cycle_lock, "testing"):
        said = shell(copy.root, "dayfold", "open", FOUR, code=1)
    assert "Another process is at work in this project (process " in said


@pytest.mark.cold
def test_while_dvc_repro_is_at_work_nothing_else_begins(copy, shell):
    repro = subprocess.Popen(
        ["dvc", "repro", "--force"],
        cwd=copy.root,
        env=vcs.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        said = shell(copy.root, "dayfold", "open", FOUR, code=1)
    finally:
        os.killpg(repro.pid, signal.SIGKILL)
        repro.wait()
    assert "is at work in this project" in said
    assert "wait for it, or stop it; then give the command again" in said


@pytest.mark.cold
def test_a_read_only_project_is_refused_before_any_work(copy, shell, tmp_path):
    mount = ["unshare", "--mount", "--map-root-user"]
    if subprocess.run([*mount, "true"], capture_output=True).returncode:
        pytest.skip("no right to mount here")
    source = tmp_path / "in"
    (source / "cyst").mkdir(parents=True)
    command = (
        f"mount --bind {copy.root} {copy.root} && mount -o remount,ro,bind {copy.root} && "
        f"cd {copy.root} && dayfold add {source} --day {FOUR}"
    )
    said = shell(copy.root, *mount, "sh", "-c", command, code=1)
    assert "This project is read-only here:" in said
    assert f"{copy.root} cannot be written to" in said


def test_the_doctor_names_what_is_wrong_and_mends_what_is_safe(copy, shell):
    (copy.root / ".dvc" / "tmp" / "rwlock").write_text("")
    vcs.git(copy.root, "tag", "--delete", f"day/{TWO}")
    vcs.git(copy.root, "checkout", "--quiet", "--detach")
    mine = copy.rebuilt / ONE
    vcs.git(copy.root, "worktree", "add", "--quiet", "--detach", str(mine))
    said = shell(copy.root, "dayfold", "doctor", code=1)
    for words in (
        "no branch is checked out",
        ".dvc/tmp/rwlock is broken",
        "1 worktrees of a killed dayfold reproduce",
        f"the tag day/{TWO} is missing",
        "4 things to mend",
    ):
        assert words in said
    said = shell(copy.root, "dayfold", "doctor", "--fix", code=1)
    assert "fixed half done  DVC was killed" in said
    assert "2 things to mend" in said
    assert not mine.exists()


@pytest.mark.cold
def test_the_doctor_finds_a_trainer_that_nobody_waits_for(copy, shell):
    # As `dvc repro` that was killed leaves it: adopted by the first process, holding the lock.
    holder = (
        "import os, time\nfrom pathlib import Path\nfrom dayfold.project.files import only_one\n"
        "if os.fork():\n    os._exit(0)\nos.setsid()\n"
        f"with only_one(Path({str(copy.trainer_lock)!r}), 'training'):\n    time.sleep(60)\n"
    )
    shell(
        copy.root,
        "python",
        "-c",
        f"import subprocess, sys\nsubprocess.Popen([sys.executable, "
        f"'-c', {holder!r}], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)",
    )
    until = time.monotonic() + 30
    while not copy.trainer_lock.exists() or not copy.trainer_lock.read_text():
        assert time.monotonic() < until
        time.sleep(0.1)
    time.sleep(1)
    said = shell(copy.root, "dayfold", "doctor", "--fix")
    assert "goes on training, but what had started it is gone" in said
    assert said.endswith("all is well\n")
    assert healing.at_work(copy) == []
    with only_one(copy.trainer_lock, "training"):
        pass
