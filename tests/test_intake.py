"""Intake takes what is a good image, and lists all that is not, at once."""

import os
import unicodedata

import pytest

from builders import DAYS, open_day, place, png, run_stages, take_in
from dayfold.errors import IntakeError
from dayfold.ledger import corrections, manifest
from dayfold.ledger.intake import delivery as deliveries
from dayfold.ledger.intake import workers
from dayfold.ledger.intake.delivery import Delivery
from dayfold.ledger.intake.finding import walk
from dayfold.project import params as params_file
from dayfold.project.files import sha256
from dayfold.project.layout import ORIGIN
from dayfold.stages import snapshot


@pytest.fixture
def nothing(project):
    return manifest.history(project, ORIGIN)


def inspect(source, history, **options):
    delivery = Delivery()
    deliveries.inspect(walk(source, delivery), delivery, history, **options)
    return delivery


def problems_of(delivery):
    return list(map(str, delivery.refused))


def test_all_problems_are_listed_at_once(source, nothing):
    (good,) = place(source, "cat", [1])
    (source / "loose.png").write_bytes(png(2))
    (source / "linked").symlink_to(source / "cat")
    (source / "all").symlink_to(source)
    (source / "cat" / "loop.png").symlink_to(source / "cat" / "loop.png")
    (source / "cat" / "link.png").symlink_to(good)
    (source / "cat" / "deeper").mkdir()
    (source / "cat" / "deeper" / "3.png").write_bytes(png(3))
    (source / "cat" / "empty.png").touch()
    (source / "cat" / "text.png").write_text("not an image")
    (source / "cat" / "cut.png").write_bytes(png(4)[:50])
    (source / "cat" / "page.html").write_text("<html></html>")
    place(source, "bad\nname", [5])
    os.mkfifo(source / "cat" / "pipe.png")
    found = inspect(source, nothing)
    assert [item.path.name for item in found.images] == ["1.png"]
    listed = problems_of(found)
    for expected in (
        "loose.png lies in no class folder (expected <class>/<image>)",
        "linked is a link; links are not followed",
        "all is a link; links are not followed",
        "cat/loop.png is a link; links are not followed",
        "cat/link.png is a link; links are not followed",
        "cat/deeper is a folder (expected <class>/<image>)",
        "cat/pipe.png is not a file (expected <class>/<image>)",
        "cat/empty.png is empty (0 bytes)",
        "cat/text.png is not an image (PNG, JPEG, BMP, TIFF, WEBP, GIF, DICOM)",
        "cat/page.html is not an image (PNG, JPEG, BMP, TIFF, WEBP, GIF, DICOM)",
        "bad\\nname has unprintable letters in its class name",
    ):
        assert expected in listed
    (cut,) = [problem for problem in listed if problem.startswith("cat/cut.png")]
    assert "is damaged" in cut
    assert len(listed) == 12


def test_no_class_is_called_as_an_audit_s_decision(source, nothing):
    for number, label in enumerate(("keep", "keep_", "withdraw", "withdraw_")):
        place(source, label, [number])
    delivery = inspect(source, nothing)
    assert [item.label for item in delivery.images] == ["keep_", "withdraw_"]
    for decision, refused in zip(("keep", "withdraw"), map(str, delivery.refused), strict=True):
        assert f"{decision} is no class name: it is a decision in audits" in refused
        assert f"use {decision}_" in refused
        assert corrections.label_problem(decision)


def test_hidden_files_clutter_and_leftovers_of_a_copy_are_passed_over_and_counted(source, nothing):
    place(source, "cat", [1])
    (source / ".hidden").mkdir()
    for name in (".DS_Store", "cat/._1.png", "cat/Thumbs.db", "cat/desktop.ini", "DICOMDIR"):
        (source / name).touch()
    for name in ("2.png.dayfold-part", ".3.png.dayfold-part"):
        (source / "cat" / name).write_bytes(png(2))
    found = inspect(source, nothing)
    assert [item.path.name for item in found.images] == ["1.png"]
    assert (problems_of(found), found.ignored) == ([], 8)


def test_the_same_bytes_are_taken_once_in_a_class_and_refused_in_two(source, nothing):
    place(source, "cat", [1, 2])
    place(source, "cat", [1], prefix="copy of ")
    place(source, "dog", [2])
    found = inspect(source, nothing)
    assert [item.path.name for item in found.images] == ["1.png"]
    assert list(map(str, found.known)) == ["cat/copy of 1.png has the same bytes as cat/1.png"]
    assert problems_of(found) == [
        "cat/2.png is in both 'cat' and 'dog' (dog/2.png); keep one copy",
        "dog/2.png is in both 'dog' and 'cat' (cat/2.png); keep one copy",
    ]


@pytest.mark.parametrize("on", ["an earlier day", "today"])
def test_an_image_that_is_there_already_is_known_or_a_problem(project, source, nothing, on):
    place(source, "cat", [1, 3])
    place(source, "dog", [2])
    there = f"data/images/{DAYS[0]}/cat"
    today = {sha256(png(number)): ("cat", f"{there}/{number}.png") for number in (1, 2)}
    if on == "today":
        found = inspect(source, nothing, today=today)
    else:
        found = inspect(source, take_in(project, DAYS[0], {"cat": [1, 2]}))
    assert [item.path.name for item in found.images] == ["3.png"]
    assert list(map(str, found.known)) == [f"cat/1.png has the same bytes as {there}/1.png"]
    assert list(map(str, found.changed)) == [
        f"dog/2.png is 'cat' in the project ({there}/2.png), but 'dog' here"
    ]


def test_a_withdrawn_image_does_not_come_back(project, source):
    take_in(project, DAYS[0], {"cat": [1, 2]})
    open_day(project, DAYS[1])
    line = f"withdraw,{sha256(png(1))},,consent\n"
    project.corrections(DAYS[1]).write_text("action,image,label,reason\n" + line)
    run_stages(project, snapshot)
    place(source, "cat", [1])
    found = inspect(source, manifest.history(project, DAYS[1]))
    assert problems_of(found) == ["cat/1.png was withdrawn"]


@pytest.mark.parametrize(
    ("one", "other"), [("cat", "Cat"), ("STRASSE", "straße"), ("É", "e\u0301")]
)
def test_a_class_that_differs_from_a_known_one_by_case_only_is_refused(project, source, one, other):
    history = take_in(project, DAYS[0], {one: [1]})
    place(source, other, [2])
    place(source, one, [3])
    found = inspect(source, history)
    assert [item.label for item in found.images] == [one]
    (problem,) = problems_of(found)
    assert "differ by case or Unicode form only" in problem
    assert repr(one) in problem
    assert repr(unicodedata.normalize("NFC", other)) in problem


def test_a_class_s_name_is_taken_in_its_composed_form_and_two_folders_of_one_are_refused(
    source, nothing
):
    pairs = [("cat", "Cat"), ("\u00e9", "e\u0301")]
    place(source, "o\u0308l", [9])
    for number, label in enumerate(label for pair in pairs for label in pair):
        place(source, label, [number])
    found = inspect(source, nothing)
    assert [item.label for item in found.images] == ["\u00f6l"]
    refused = sorted(remark.place.partition("/")[0] for remark in found.refused)
    assert refused == sorted(label for pair in pairs for label in pair)


def test_progress_counts_every_file_to_the_end(source, nothing):
    place(source, "cat", range(5))
    (source / "cat" / "text.png").write_text("x")
    seen, paths = [], [str(path) for path in (source / "cat").iterdir()]
    requests = [{"path": path, "stage": ""} for path in paths]
    workers.answers(requests, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(done, 6) for done in range(1, 7)]


def test_snapshot_writes_no_manifest_while_there_are_problems(project):
    open_day(project, DAYS[0])
    folder = project.images(DAYS[0])
    with pytest.raises(IntakeError, match=f"no new image in data/images/{DAYS[0]}"):
        run_stages(project, snapshot)
    folder.rmdir()
    with pytest.raises(IntakeError, match=f"no new image in data/images/{DAYS[0]}"):
        run_stages(project, snapshot)
    params_file.edit(project.params, {"data.group": r"(p\d+)_"})
    place(folder, "cat", [1], prefix="p07_")
    place(folder, "cat", [2, 3], prefix="nobody_")
    (folder / "cat" / "p08_4.png").touch()
    with pytest.raises(IntakeError, match="3 problems in data/images/2025-06-01") as caught:
        run_stages(project, snapshot)
    no_patient = "has no patient id (data.group does not match)"
    assert sum(no_patient in line for line in caught.value.problems) == 2
    assert caught.value.hint == "fix or remove these files, then dvc repro"
    assert not project.manifest(DAYS[0]).exists()


def test_snapshot_says_what_it_found(project, capsys):
    take_in(project, DAYS[0], {"cat": range(10)})
    open_day(project, DAYS[1])
    corrections.write_empty(project, DAYS[1])
    place(project.images(DAYS[1]), "cat", range(9, 12))
    place(project.images(DAYS[1]), "dog", [20])
    (project.images(DAYS[1]) / ".hidden").touch()
    capsys.readouterr()
    run_stages(project, snapshot)
    said = capsys.readouterr().out.splitlines()
    # Of the cats 7, 1 and 2 of 10: train lacks 0.7 of the eleventh, 0.4 (as test does) of the next.
    assert said[0] == (
        "3 images (3 train, 0 validation, 0 test) in 2 classes, new: dog; 10 on 1 earlier day"
    )
    assert said[1].startswith("known: ")
    assert said[2] == "ignored: 1 hidden file"
