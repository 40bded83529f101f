"""Odd shapes are asked about, and every outcome of `add` is told with what to do."""

import os
import unicodedata
import zipfile

import pytest
from PIL import Image

from builders import DAYS, add, encoded, place, png, run_stages, taken
from dayfold.errors import IntakeError
from dayfold.ledger.intake import delivery as deliveries
from dayfold.project.console import show
from dayfold.stages import snapshot

DAY = DAYS[0]


def many(source, count):
    for number in range(count):
        place(source, f"class-{number}", [number])


def test_a_class_an_image_is_asked_about(receiving, source):
    many(source, deliveries.FEW - 1)
    assert len(add(receiving, source, dry_run=True).warned) == 0  # a day like any other
    many(source, deliveries.FEW)
    with pytest.raises(IntakeError, match="looks odd, so nothing was added") as caught:
        add(receiving, source)
    assert "wrong folder, one level too high or low?" in caught.value.problems[0]
    assert "--yes" in caught.value.hint
    assert taken(receiving) == {}
    delivery = add(receiving, source, yes=True)
    assert len(delivery.images) == deliveries.FEW
    assert "is odd" in str(delivery.warned[0])


def test_classes_named_like_days_and_very_many_files_are_asked_about():
    (said,) = deliveries.suspicions({"2025-06-01": 9, "20250602": 9, "cat": 3}, {"cat"})
    assert "dayfold run" in said
    assert deliveries.suspicions({"2025-06-01": 9}, {"2025-06-01"}) == []
    (said,) = deliveries.suspicions({"left  ovary": 9, "ER+": 9}, {"left ovary", "ER-"})
    assert said == "classes differ by spaces only: 'left  ovary' and 'left ovary'"
    (said,) = deliveries.suspicions({"=A1": 9, "#REF!": 9, "#1": 9}, {"#1"})
    assert "formulas or errors of a spreadsheet: ['#REF!', '=A1']" in said
    assert deliveries.suspicions({"cat": deliveries.MANY - 1}, set()) == []
    (said,) = deliveries.suspicions({"cat": 100_000}, set())
    assert "100000 files" in said


def test_very_many_files_are_asked_about_before_any_is_read(receiving, source, monkeypatch):
    monkeypatch.setattr(deliveries, "MANY", 500)
    (source / "cat").mkdir()
    first = source / "cat" / "0.png"
    first.write_bytes(b"not read")
    for number in range(1, deliveries.MANY):
        os.link(first, source / "cat" / f"{number}.png")
    with pytest.raises(IntakeError, match="looks odd") as caught:
        add(receiving, source)
    assert caught.value.problems == [f"{deliveries.MANY} files are many for one day"]


def test_an_empty_folder_is_nothing_new_and_an_empty_class_is_said(receiving, source):
    assert add(receiving, source).images == []
    (source / "cat").mkdir()
    delivery = add(receiving, source)
    assert list(map(str, delivery.warned)) == ["cat is a class folder without an image"]


@pytest.mark.parametrize(
    ("made", "hint"),
    [
        (
            ["today/cat/1.png", "more/dog/2.png"],
            "each folder inside on its own: dayfold add FOLDER/more",
        ),
        (["2025-06-02/cat/1.png", "2025-06-03/dog/2.png"], "a folder of days is for dayfold run"),
        (["1.png", "2.png"], "pass the parent folder"),
    ],
)
def test_a_wrong_depth_is_told_with_the_right_one(receiving, source, made, hint):
    for number, name in enumerate(made):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(png(number))
    with pytest.raises(IntakeError) as caught:
        add(receiving, source)
    assert hint in caught.value.hint


def test_an_archive_of_loose_images_is_told_what_to_pack(receiving, tmp_path):
    with zipfile.ZipFile(tmp_path / "flat.zip", "w") as archive:
        archive.writestr("1.png", png(1))
    with pytest.raises(IntakeError) as caught:
        add(receiving, tmp_path / "flat.zip")
    assert caught.value.hint.startswith("pack a folder that contains class folders")
    with zipfile.ZipFile(tmp_path / "flat.zip", "a") as archive:
        archive.writestr("labels.csv", "path,label")
    with pytest.raises(IntakeError) as caught:
        add(receiving, tmp_path / "flat.zip")
    way = "if labels.csv has the labels: unpack it, then dayfold add FOLDER --labels FILE"
    assert caught.value.hint == way


def test_the_table_names_every_outcome_and_no_more_lines_than_are_read(receiving, source, capsys):
    place(source, "cat", range(3))
    place(source, "cat", [1], prefix="copy of ")
    for number in range(12):
        (source / "cat" / f"[bold]bad-{number:02}.png").write_bytes(b"")
    (source / "cat" / "photo.png").write_bytes(encoded(Image.new("RGB", (9, 9)), "JPEG"))
    (source / "cat" / ".hidden").touch()
    show(add(receiving, source).table(DAY))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == [DAY, "files"]
    assert lines[1].split() == ["added", "4", "cat", "4"]
    assert lines[2].split()[:3] == ["already", "known", "1"]
    assert lines[3].split()[:3] == ["refused", "12", "cat/[bold]bad-00.png"]
    assert lines[8].strip() == f"and 7 more in data/rejected/{DAY}.csv"
    assert lines[9].split()[:3] == ["warned", "1", "cat/photo.png"]
    assert lines[10].split()[:2] == ["ignored", "1"]


def test_snapshot_refuses_names_that_add_would_have_changed_and_says_what_is_odd(receiving, capsys):
    folder = receiving.images(DAY)
    for number in range(12):
        place(folder, f"class {number}", [number])
    run_stages(receiving, snapshot)
    assert "is odd: 12 new classes hold one file each" in capsys.readouterr().out
    for number, name in enumerate(("a.png", "A.png", unicodedata.normalize("NFD", "é.png")), 12):
        place(folder, "cat", [number])[0].rename(folder / "cat" / name)
    with pytest.raises(IntakeError, match="2 problems") as caught:
        run_stages(receiving, snapshot)
    case, form = sorted(caught.value.problems)
    assert "cat/A.png where case is ignored" in case
    assert "not in composed Unicode (NFC)" in form
