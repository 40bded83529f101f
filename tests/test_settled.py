"""What a hand edits, deletes or adds on a sealed day, the next command tells, with its undo."""

import os
import shlex
import shutil

import pytest

from dayfold.cycle import settled
from dayfold.cycle.standing import standing
from dayfold.demo import DAYS
from dayfold.errors import CycleError
from dayfold.project import vcs

pytestmark = pytest.mark.slow
ONE, TWO, THREE, FOUR = DAYS[:4]
ALL = "Files of sealed days were edited, deleted or added by hand:"


def check(project):
    now = standing(project)
    settled.check(project, now.params, now.sealed)


def problems(project):
    with pytest.raises(CycleError, match=ALL) as caught:
        check(project)
    return caught.value.problems


@pytest.fixture
def checked(copy):
    """The copy after a command that has looked at it: from here on only what is younger counts."""
    check(copy)
    return copy


def image(project, day=ONE, number=0):
    return sorted(project.images(day).glob("*/*.png"))[number]


def replace(path):
    """As `cp -p` and some editors do it: other bytes, as many and as old as the ones before."""
    data, before = bytearray(path.read_bytes()), path.stat()
    data[-20] ^= 1
    path.unlink()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_every_kind_of_edit_is_told_by_the_next_command_and_undone_as_it_says(checked, shell):
    root = checked.root
    changed, deleted = image(checked), image(checked, number=1)
    replace(changed)
    deleted.unlink()
    added = image(checked, TWO).with_name("new.png")
    shutil.copy(image(checked, TWO), added)
    (checked.images(TWO) / ".DS_Store").write_text("left by a desktop")
    moved = image(checked, THREE).parent
    count = len(list(moved.iterdir()))
    moved.rename(moved.with_name("zero"))
    corrections = checked.corrections(ONE)
    corrections.write_text("by hand")
    said = shell(root, "dayfold", "open", FOUR, code=1)
    assert ALL in said
    for path, what in (
        (corrections, "is not what git has"),
        (changed, "was changed"),
        (deleted, "was deleted"),
        (added, "was added"),
    ):
        assert f"  - {checked.name(path)} {what}\n" in said
    assert f"  - and {count + 1 - settled.SHOWN} more was deleted\n" in said
    folders = " ".join(f"data/images/{day}" for day in (ONE, TWO, THREE))
    steps = f"git checkout HEAD -- {checked.name(corrections)}", f"dvc checkout --force {folders}"
    assert f"move what was added elsewhere (DVC deletes it), then: {' && '.join(steps)};" in said
    for words in (("status",), ("relabel", str(changed), "--to", "1", "--day", FOUR)):
        heard = shell(root, "dayfold", *words, code=int(words[0] == "relabel"))
        assert f"  - {checked.name(changed)} was changed\n" in heard
        assert " && ".join(steps) in heard
    assert not checked.corrections(FOUR).exists()
    for step in steps:
        shell(root, *shlex.split(step))
    assert "by hand" not in shell(root, "dayfold", "status")
    shell(root, "dayfold", "open", FOUR)


def test_while_a_day_is_open_add_and_seal_tell_it_too(checked, shell, digits):
    shell(checked.root, "dayfold", "open", FOUR)
    path = image(checked, THREE)
    replace(path)
    for words in (
        ("add", str(digits / FOUR), "--day", FOUR),
        ("seal",),
        ("run", str(digits / FOUR)),
    ):
        day = ("--day", FOUR) if words[0] == "run" else ()
        said = shell(checked.root, "dayfold", *words, *day, code=1)
        assert f"  - {checked.name(path)} was changed\n" in said
    assert list(checked.images(FOUR).iterdir()) == []
    shell(checked.root, "dvc", "checkout", "--force", f"data/images/{THREE}")
    shell(checked.root, "dayfold", "add", str(digits / FOUR), "--day", FOUR)


def test_a_pin_of_dvc_s_that_was_edited_is_told_and_one_that_only_moved_is_not(checked, shell):
    shell(checked.root, "dayfold", "open", FOUR)
    check(checked)  # the pin of the third day has moved from its own file to its month's
    month = checked.tracked_month(ONE)
    month.write_text(month.read_text().replace("md5: ", "md5: 0", 1))
    names = [checked.name(checked.tracked(THREE)), checked.name(month)]
    assert problems(checked) == [f"{name} is not what git has" for name in names]
    vcs.git(checked.root, "checkout", "HEAD", "--", *names)
    check(checked)
    month.unlink()
    assert problems(checked)


def test_an_open_day_s_pin_that_was_committed_by_hand_is_no_edit_of_a_sealed_day(
    checked, shell, digits
):
    root = checked.root
    shell(root, "dayfold", "add", str(digits / FOUR), "--day", FOUR)
    shell(root, "dvc", "add", checked.name(checked.images(FOUR)))
    shell(root, "git", "add", checked.name(checked.tracked(FOUR)))
    shell(root, "git", "commit", "--quiet", "--message", "by hand")
    image(checked, FOUR).unlink()
    shell(root, "dvc", "add", checked.name(checked.images(FOUR)))
    check(checked)


def test_only_what_is_younger_than_the_last_check_is_read(checked, monkeypatch):
    read = []
    hashed = settled.sha256_file
    monkeypatch.setattr(settled, "sha256_file", lambda path: read.append(path) or hashed(path))
    check(checked)
    assert read == []
    path = image(checked)
    path.touch()
    check(checked)
    assert read == [path]
    check(checked)
    assert read == [path]
    # Not before an edit was undone is the mark moved on.
    replace(path)
    assert problems(checked) == problems(checked) == [f"{checked.name(path)} was changed"]


def test_a_link_that_dvc_makes_or_removes_elsewhere_is_no_edit(copy, monkeypatch, tmp_path):
    path = image(copy)
    (copy.scratch / "cached").hardlink_to(path)
    check(copy)
    before = path.stat().st_ctime_ns
    (tmp_path / "in a worktree").hardlink_to(path)
    assert path.stat().st_ctime_ns > before
    monkeypatch.setattr(settled, "sha256_file", None)  # nothing is read
    check(copy)


def test_a_day_that_was_not_pulled_and_a_withdrawn_image_are_no_edits(checked, shell):
    shutil.rmtree(checked.images(TWO))
    path = image(checked)
    shell(checked.root, "dayfold", "withdraw", str(path), "--reason", "blurred", "--day", FOUR)
    check(checked)
    path.unlink()
    assert problems(checked) == [f"{checked.name(path)} was deleted"]  # not sealed yet
