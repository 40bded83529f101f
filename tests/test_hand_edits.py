"""What a hand edits, deletes or adds on a sealed day, the next command tells, with its undo."""

import errno
import json
import os
import re
import shutil

import pytest

from builders import RealProject
from dayfold.demo import DAYS
from dayfold.errors import CycleError
from dayfold.history import hand_edits
from dayfold.history.state import ProjectState
from dayfold.project import vcs
from dayfold.project.console import MOST_LINES
from faults import Disk

pytestmark = pytest.mark.slow
ONE, TWO, THREE, FOUR = DAYS[:4]
ALL = (
    "Files of sealed days were edited, deleted or added by hand (dayfold relabel corrects labels):"
)


def check(project):
    hand_edits.check(ProjectState.read(project))


def problems(project):
    with pytest.raises(CycleError, match=re.escape(ALL)) as caught:
        check(project)
    return caught.value.problems


@pytest.fixture
def checked(copy):
    """The copy after a command that has looked at it: from here on only what is younger counts."""
    check(copy)
    return copy


@pytest.fixture
def clone(copy, shell, tmp_path):
    """A clone of the copy and of its remote: what it pulls are hard links into its cache."""
    copy.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    copy.git("commit", "--quiet", "--all", "--message", "Share")
    copy.dvc("push", "--quiet")
    shell(tmp_path, "git", "clone", "--quiet", str(copy.root), "clone")
    return RealProject(tmp_path / "clone")


def undo(project):
    """Do as `status` says."""
    project.sh("-c", project.dayfold("status").split("next    ")[1])
    assert "by hand" not in project.dayfold("status")


def image(project, day=ONE, number=0):
    return sorted(project.images(day).glob("*/*.png"))[number]


def replace(path):
    """As `cp -p` and some editors do it: other bytes, as many and as old as the ones before."""
    data, before = bytearray(path.read_bytes()), path.stat()
    data[-20] ^= 1
    new = path.with_name("new")  # beside it: DVC knows a file by its inode, size and time
    new.write_bytes(data)
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.replace(path)


def test_every_kind_of_edit_is_told_by_the_next_command_and_undone_as_it_says(checked, digits):
    changed, deleted = image(checked), image(checked, number=1)
    replace(changed)
    deleted.unlink()
    added = image(checked, TWO).with_name("new.png")
    shutil.copy(image(checked, TWO), added)
    (checked.images(TWO) / ".DS_Store").write_text("left by a desktop")
    moved = image(checked, THREE).parent
    count = len(list(moved.iterdir()))
    moved.rename(moved.with_name("zero"))
    corrections, evaluation = checked.corrections(ONE), checked.evaluation(TWO)
    corrections.write_text("by hand")
    evaluation.unlink()
    said = checked.dayfold("add", "--day", FOUR, code=1)
    assert ALL in said
    for path, what in (
        (corrections, "differs from git"),
        (evaluation, "differs from git"),
        (changed, "was changed"),
        (deleted, "was deleted"),
        (added, "was added"),
    ):
        assert f"  - {checked.name(path)} {what}\n" in said
    assert f"  - and {count + 1 - MOST_LINES} more\n" in said
    folders = " ".join(f"data/images/{day}" for day in (ONE, TWO, THREE))
    steps = (
        f"git checkout HEAD -- {checked.name(corrections)} {checked.name(evaluation)} && "
        f"dvc checkout --force {folders} || dvc pull --force {folders} || dayfold check --read-data"
    )
    assert f"move added files elsewhere (DVC deletes them), then: {steps}\n" in said
    for words in (("status",), ("relabel", str(changed), "--to", "1", "--day", FOUR)):
        heard = checked.dayfold(*words, code=int(words[0] == "relabel"))
        assert f"  - {checked.name(changed)} was changed\n" in heard
        assert steps in heard
    assert not checked.corrections(FOUR).exists()
    checked.sh("-c", steps)
    assert "by hand" not in checked.dayfold("status")
    # While a day is open too.
    checked.dayfold("add", "--day", FOUR)
    path = image(checked, THREE)
    replace(path)
    given = (str(digits / FOUR), "--day", FOUR)
    for words in (("add", *given), ("seal",), ("run", *given)):
        assert f"  - {checked.name(path)} was changed\n" in checked.dayfold(*words, code=1)
    assert list(checked.images(FOUR).iterdir()) == []
    checked.dvc("checkout", "--force", f"data/images/{THREE}")
    checked.dayfold("add", *given)
    # An open day's pin that was committed by hand is none.
    for message in ("by hand", ""):
        checked.dvc("add", checked.name(checked.images(FOUR)))
        if message:
            checked.git("add", checked.name(checked.tracked(FOUR)))
            checked.git("commit", "--quiet", "--message", message)
            image(checked, FOUR).unlink()
    check(checked)


def test_of_very_many_days_some_are_looked_at_each_time_and_all_in_turn_on_a_full_disk_too(
    copy, monkeypatch
):
    with Disk() as disk:
        disk.fails_at, disk.error = 1, errno.ENOSPC
        check(copy)
        assert disk.count == 1
    check(copy)
    monkeypatch.setattr(hand_edits, "MOST_DAYS", 1)
    for day in (ONE, TWO, THREE):
        path = image(copy, day)
        data = path.read_bytes()
        replace(path)
        found = set()
        for _ in range(3):
            try:
                check(copy)
            except CycleError as error:
                found |= set(error.problems)
        assert found == {f"{copy.name(path)} was changed"}
        path.unlink()
        path.write_bytes(data)
        check(copy)


def test_a_pin_and_a_parent_that_were_edited_are_told_and_a_pin_that_only_moved_is_not(checked):
    checked.dayfold("add", "--day", FOUR)
    check(checked)  # the pin of the third day has moved from its own file to its month's
    month = checked.tracked_month(ONE)
    month.write_text(month.read_text().replace("md5: ", "md5: 0", 1))
    names = [checked.name(checked.tracked(THREE)), checked.name(month)]
    assert problems(checked) == [f"{name} differs from git" for name in names]
    vcs.git(checked.root, "checkout", "HEAD", "--", *names)
    check(checked)
    month.unlink()
    assert problems(checked)
    root, what = checked.root, f"data/parent is not what {THREE} made"
    vcs.git(root, "checkout", "HEAD", "--", *names)
    check(checked)
    for pinned in (False, True):
        data = checked.parent_predictions.read_bytes()
        checked.parent_predictions.unlink()
        checked.parent_predictions.write_bytes(data + b"x")
        if pinned:  # as `dvc repro` does before it trains
            checked.dvc("repro", "data/parent.dvc")
        assert problems(checked) == [what]
        said = checked.dayfold("seal", code=1)
        assert what in said
        assert ("rm -rf data/parent" in said) == pinned
        undo(checked)
    checked.parent_predictions.unlink()
    (checked.parent / "new.csv").write_text("")
    assert problems(checked) == [what]


def test_a_git_pull_without_a_dvc_pull_is_no_edit_by_hand(copy):
    copy.git("checkout", "--quiet", f"day/{TWO}")
    copy.dvc("checkout")
    copy.git("checkout", "--quiet", "-")
    said = copy.dayfold("status")
    assert f"{THREE} is sealed, but not here yet: git was pulled, and DVC was not" in said
    undo(copy)
    assert "next    dayfold add FOLDER" in copy.dayfold("status")


def test_only_days_that_were_touched_since_the_last_check_are_read(copy, monkeypatch, tmp_path):
    path = image(copy)
    (copy.scratch / "cached").hardlink_to(path)
    check(copy)
    read = []
    hashed = hand_edits.sha256_file
    monkeypatch.setattr(hand_edits, "sha256_file", lambda path: read.append(path) or hashed(path))
    # A link that DVC makes elsewhere is no edit.
    before = path.stat().st_ctime_ns
    (tmp_path / "in a worktree").hardlink_to(path)
    assert path.stat().st_ctime_ns > before
    check(copy)
    assert read == []
    path.touch()
    check(copy)
    check(copy)
    assert sorted(read) == sorted(copy.images(ONE).glob("*/*.png"))
    # Not before an edit was undone is the mark moved on.
    replace(path)
    assert problems(copy) == problems(copy) == [f"{copy.name(path)} was changed"]
    # What nothing is known of is read once, and what a clock that was put back since noted.
    noted = json.loads(copy.last_checked.read_bytes())
    for ahead in ({}, {day: at + 86400 * 10**9 for day, at in noted.items()}):
        copy.last_checked.write_text(json.dumps(ahead))
        assert problems(copy) == [f"{copy.name(path)} was changed"]
    vcs.dvc(copy.root, "checkout", "--force", f"data/images/{ONE}")
    check(copy)
    read.clear()
    check(copy)
    assert read == []


def test_what_the_first_seal_sealed_is_looked_at_from_then_on(copy, digits):
    copy.git("reset", "--quiet", "--hard", f"day/{ONE}")
    copy.git("tag", "--delete", f"day/{TWO}", f"day/{THREE}")
    copy.dvc("checkout", "--quiet", "--force")
    copy.dayfold("undo", "--yes")
    copy.last_checked.unlink()
    copy.dayfold("seal")
    path = image(copy)
    replace(path)
    assert f"  - {copy.name(path)} was changed\n" in copy.dayfold("status")
    given = (str(digits / TWO), "--day", TWO)
    assert f"  - {copy.name(path)} was changed\n" in copy.dayfold("add", *given, code=1)
    undo(copy)
    shutil.rmtree(copy.images(ONE))
    assert f"{copy.name(path)} was deleted" in copy.dayfold("status")
    undo(copy)


def test_a_clone_that_pulled_nothing_is_as_it_was_sealed_and_one_that_did_is_looked_at(clone):
    assert "by hand" not in clone.dayfold("status")
    clone.dvc("pull", "--quiet")
    path = image(clone)
    path.chmod(0o644)
    with path.open("ab") as file:  # and with it its object in the cache
        file.write(b"x")
    said = clone.dayfold("status")
    folder = f"data/images/{ONE}"
    assert f"  - {clone.name(path)} was changed\n" in said
    assert (
        f"next    dvc checkout --force {folder} || dvc pull --force {folder} || dayfold check"
        in said
    )
    # DVC drops the object, cannot make the folder without it, and leaves none.
    clone.dvc("status", clone.name(clone.tracked_month(ONE)))
    clone.dvc("checkout", "--force", folder, code=255)
    assert not path.exists()
    assert f"{clone.name(path)} was deleted\n" in clone.dayfold("status")
    undo(clone)
    assert path.exists()


def test_stages_refuse_tables_that_were_edited_and_what_looks_back_warns(copy, tmp_path):
    table = copy.evaluation(THREE)
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    assert f"warning: {THREE} is not as it was sealed: {copy.name(table)}.\n" in copy.dayfold("log")
    copy.git("checkout", "HEAD", "--", copy.name(table))
    assert "warning" not in copy.dayfold("log")
    copy.dayfold("add", "--day", FOUR)
    path = copy.manifest(THREE)
    path.write_text(path.read_text().replace(",train", ",test", 1))
    found = f"{ALL}\n  - {copy.name(path)} differs from git\n→ git checkout HEAD -- "
    for stage in ("snapshot", "curve"):
        assert found in copy.dayfold(stage, code=1)
    card = ("export", str(tmp_path / "card.md"), "--day", THREE)
    for words in (("log",), ("report",), card):
        assert f"warning: {found}" in copy.dayfold(*words)
    # Where nothing can be sealed, in a worktree of `reproduce` say, they may be others.
    copy.git("checkout", "--quiet", "--detach")
    assert "There is no new image" in copy.dayfold("snapshot", code=1)


def test_a_name_is_told_on_one_line_and_a_withdrawn_image_is_no_edit_once_it_is_sealed(checked):
    odd = image(checked).with_name("a\x1b[31mred\nb.png")
    shutil.copy(image(checked), odd)
    said = checked.dayfold("status")
    assert r"/a\x1b[31mred\nb.png was added" in said
    assert "\x1b" not in said
    assert "nb.png was added" in checked.dayfold("check", code=1)
    odd.unlink()
    assert "all is well" in checked.dayfold("check")
    path = image(checked)
    checked.dayfold("withdraw", str(path), "--reason", "blurred", "--day", FOUR)
    check(checked)
    path.unlink()
    assert problems(checked) == [f"{checked.name(path)} was deleted"]  # not sealed yet
