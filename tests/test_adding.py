"""`add` takes what is good at once, or nothing, and loses no file."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from builders import DAYS, add, contents, open_day, place, png, rejected, taken
from dayfold.errors import IntakeError
from dayfold.ledger import tables
from dayfold.ledger.tables import RemarkRow
from dayfold.project import vcs
from dayfold.project.console import MOST_LINES, first_few, show
from dayfold.project.files import sha256
from test_archives import zipped

DAY = DAYS[0]


def left_over(project):
    """What is in the scratch folder, beside what is noted of sealed days."""
    return [path for path in project.scratch.iterdir() if path != project.last_checked]


def test_good_files_come_in_and_the_others_stay_and_are_listed(receiving, source):
    place(source, "cat", [1, 2])
    (source / "cat" / "page.png").write_text("<html>")
    (source / "loose.png").write_bytes(png(3))
    delivery = add(receiving, source)
    assert taken(receiving) == {"cat/1.png": png(1), "cat/2.png": png(2)}
    assert [(one.label, one.path.name, one.image) for one in delivery.images] == [
        ("cat", "1.png", sha256(png(1))),
        ("cat", "2.png", sha256(png(2))),
    ]
    assert left_over(receiving) == []
    assert [(row["source"], row["path"], row["image"]) for row in rejected(receiving)] == [
        ("../given", "cat/page.png", sha256(b"<html>")),
        ("../given", "loose.png", ""),
    ]
    assert "is not an image" in rejected(receiving)[0]["reason"]
    assert (source / "cat" / "page.png").read_text() == "<html>"


def test_a_refused_file_that_is_fixed_is_no_longer_listed_and_a_source_is_listed_once(
    receiving, source, monkeypatch
):
    place(source, "cat", [1])
    (source / "cat" / "2.png").write_bytes(b"")
    (source / "cat" / "3.png").write_bytes(b"")
    add(receiving, source)
    place(source, "cat", [2])
    delivery = add(receiving, source)
    assert sorted(taken(receiving)) == ["cat/1.png", "cat/2.png"]
    assert [remark.place for remark in delivery.known] == ["cat/1.png"]
    monkeypatch.chdir(source.parent)
    for spelled in (Path(source.name), Path("..", source.parent.name, source.name)):
        add(receiving, spelled)
    assert [row["path"] for row in rejected(receiving)] == ["cat/3.png"]


@pytest.mark.parametrize("options", [{"strict": True}, {}])
def test_where_all_is_refused_or_anything_when_strict_nothing_is_added(receiving, source, options):
    place(source, "cat", [1, 2] if options else [2])
    (source / "cat" / "2.png").write_bytes(b"")
    with pytest.raises(IntakeError, match="nothing was added") as caught:
        add(receiving, source, **options)
    assert caught.value.problems == ["cat/2.png is empty (0 bytes)"]
    assert taken(receiving) == {}
    assert len(rejected(receiving)) == 1


def test_a_dry_run_reports_the_same_as_what_would_be_and_changes_nothing(project, source, capsys):
    vcs.git(project.root, "init", "--quiet")
    place(source, "cat", [1, 2])
    (source / "cat" / "3.png").write_bytes(b"")
    before = contents(project.root)
    delivery = add(project, source, dry_run=True)
    assert (len(delivery.images), len(delivery.refused)) == (2, 1)
    assert delivery.notes == [f"would open {DAY} (parent origin)"]
    show(delivery.table(DAY))
    said = capsys.readouterr().out
    assert "would be added" in said
    assert "would be refused" in said
    assert delivery.next_step().startswith("nothing was changed")
    assert contents(project.root) == before
    open_day(project, DAY)
    real = add(project, source)
    assert (real.images, real.refused) == (delivery.images, delivery.refused)


def test_a_refused_add_leaves_nothing_of_a_day_that_was_not_opened(project, source):
    vcs.git(project.root, "init", "--quiet")
    for number in range(MOST_LINES + 3):
        place(source, "cat", [number])[0].write_bytes(b"")
    before = contents(project.root)
    with pytest.raises(IntakeError, match="8 problems") as caught:
        add(project, source)
    assert contents(project.root) == before
    assert not project.images(DAY).exists()
    assert caught.value.problems[-1] == "and 3 more in .dvc/tmp/dayfold/remarks.csv"
    assert len(tables.read(project.remarks, RemarkRow)) == MOST_LINES + 3


def test_a_long_list_is_five_lines_and_how_many_more_where():
    lines = list("012345")
    assert first_few(lines[:MOST_LINES], "FILE") == lines[:MOST_LINES]
    assert first_few(lines, "FILE") == [*lines[:MOST_LINES], "and 1 more in FILE"]


def test_move_takes_the_added_files_away_and_no_others(receiving, source):
    place(source, "cat", [1, 2])
    place(source, "cat", [1], prefix="copy of ")
    (source / "cat" / "3.png").write_bytes(b"")
    add(receiving, source, move=True)
    assert sorted(path.name for path in source.glob("*/*")) == ["3.png", "copy of 1.png"]


def test_move_from_where_nothing_can_be_taken_away_adds_all_and_says_so(
    receiving, source, monkeypatch
):
    place(source, "cat", [1, 2])
    unlink = Path.unlink

    def closed(path, **options):  # to root no folder is closed
        if path == source / "cat" / "1.png":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", closed)
    delivery = add(receiving, source, move=True)
    assert len(taken(receiving)) == len(delivery.images) == 2
    assert list(map(str, delivery.warned)) == [
        "cat/1.png was added, but cannot be removed from its place (Permission denied)"
    ]
    assert [path.name for path in source.glob("*/*")] == ["1.png"]


# The stage is there before the first worker has started, and filled when all have.
@pytest.mark.cold
@pytest.mark.parametrize("waiting_for", ["adding/stage", "adding/stage/*"])
def test_an_interrupted_add_adds_nothing_and_the_next_one_all(receiving, source, waiting_for):
    place(source, "cat", range(600))
    code = (
        "import sys; from pathlib import Path; from dayfold.cycle import adding\n"
        "from dayfold.project.layout import Project\n"
        "print('go', flush=True)\n"
        f"adding.add(Project(Path({str(receiving.root)!r})), Path({str(source)!r}), day={DAY!r})\n"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert running.stdout.readline() == b"go\n"
    while not list(receiving.scratch.glob(waiting_for)):
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGINT)  # as Ctrl-C does
    _, said = running.communicate(timeout=60)
    assert said.rstrip().endswith(b"KeyboardInterrupt")
    assert said.count(b"Traceback") == 1  # and none of a worker's
    assert taken(receiving) == {}
    assert left_over(receiving) == []
    assert len(add(receiving, source).images) == 600
    assert len(taken(receiving)) == 600


def test_a_thread_that_starts_as_ctrl_c_comes_writes_nothing(receiving, source, monkeypatch):
    place(source, "cat", range(40))
    before, start = set(threading.enumerate()), threading.Thread.start

    def interrupted(thread):
        start(thread)
        time.sleep(0.1)  # by then it would have asked a worker
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            add(receiving, source)
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=60)
    assert left_over(receiving) == []
    assert len(add(receiving, source).images) == 40


def test_add_works_where_its_output_is_closed_and_with_its_input_closed_nobody_is_asked(
    receiving, source
):
    place(source, "cat", [1])
    (receiving.root / "dvc.yaml").touch()
    assert receiving.shell("bash", "-c", f"dayfold add {source} --day {DAY} >&-") == ""
    assert taken(receiving) == {"cat/1.png": png(1)}
    said = receiving.shell("bash", "-c", "dayfold undo <&-", code=1)
    assert "There is no terminal to ask on, so nothing was done" in said


@pytest.mark.parametrize("top", ["", "today/"])
def test_a_zip_is_taken_as_the_folder_that_it_was(receiving, tmp_path, top):
    members = [
        (f"{top}cat/1.png", png(1)),
        (f"{top}dog/2.png", png(2)),
        (f"{top}dog/3.png", b"<html>"),
        (f"{top}readme.txt", b"read me"),
        ("../4.png", png(4)),
        ("__MACOSX/dog/._2.png", b""),
    ]
    path = zipped(tmp_path / "scans.zip", members)
    delivery = add(receiving, path)
    assert taken(receiving) == {"cat/1.png": png(1), "dog/2.png": png(2)}
    places = sorted(remark.place for remark in delivery.refused)
    assert places == ["../4.png", "dog/3.png", "readme.txt"]
    assert left_over(receiving) == []
    with pytest.raises(IntakeError, match="is an archive"):
        add(receiving, path, move=True)


def test_a_class_with_a_folder_in_it_is_not_taken_for_the_folder_of_classes(receiving, tmp_path):
    members = [("cat/1.png", png(1)), ("cat/old/2.png", png(2))]
    (refused,) = add(receiving, zipped(tmp_path / "scans.zip", members)).refused
    assert refused.place == "cat/old"
    assert taken(receiving) == {"cat/1.png": png(1)}


def test_what_is_neither_a_folder_nor_an_archive_is_refused(receiving, source, tmp_path):
    (file,) = place(source, "cat", [1])
    with pytest.raises(IntakeError, match="is neither a folder nor a zip or tar archive"):
        add(receiving, file)
    with pytest.raises(IntakeError, match="is not there"):
        add(receiving, source / "nowhere")
    (tmp_path / "empty.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    assert add(receiving, tmp_path / "empty.zip").images == []
