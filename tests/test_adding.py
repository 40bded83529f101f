"""`add` takes what is good at once, or nothing; loses no file, and says what became of each."""

import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders import DAYS, encoded, make_project, open_day, place, png
from dayfold.cycle import adding, arrivals
from dayfold.cycle.adding import Options
from dayfold.errors import IntakeError
from dayfold.ledger import manifest
from dayfold.ledger.intake import shapes
from dayfold.ledger.intake.delivery import Delivery
from dayfold.ledger.intake.walking import walk
from dayfold.project import params as params_file
from dayfold.project import vcs
from dayfold.project.console import show
from dayfold.project.files import sha256
from dayfold.stages import snapshot
from test_dicom import scan

DAY = DAYS[0]


@pytest.fixture
def project(tmp_path):
    """A project with an open day; git is there, and nothing trains."""
    made = make_project(tmp_path / "project")
    vcs.git(made.root, "init", "--quiet")
    open_day(made, DAY)
    return made


@pytest.fixture
def source(tmp_path):
    made = tmp_path / "given"
    made.mkdir()
    return made


def add(project, source, **options):
    _, delivery = adding.add(project, source, day=DAY, options=Options(**options))
    return delivery


def taken(project):
    """The files of the day, by path below its folder."""
    folder = project.images(DAY)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def everything(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.parts and ".dvc" not in path.parts
    }


def rejected(project):
    return list(csv.DictReader(project.rejected(DAY).read_text().splitlines()))


def test_good_files_come_in_and_the_others_stay_and_are_listed(project, source):
    place(source, "cat", [1, 2])
    (source / "cat" / "page.png").write_text("<html>")
    (source / "loose.png").write_bytes(png(3))
    delivery = add(project, source)
    assert taken(project) == {"cat/1.png": png(1), "cat/2.png": png(2)}
    assert len(delivery.images) == 2
    assert [(row["source"], row["path"], row["image"]) for row in rejected(project)] == [
        (str(source), "cat/page.png", sha256(b"<html>")),
        (str(source), "loose.png", ""),
    ]
    assert "is not an image" in rejected(project)[0]["reason"]
    assert (source / "cat" / "page.png").read_text() == "<html>"


def test_a_refused_file_that_is_mended_is_taken_and_no_longer_listed(project, source):
    place(source, "cat", [1])
    (source / "cat" / "2.png").write_bytes(b"")
    (source / "cat" / "3.png").write_bytes(b"")
    add(project, source)
    place(source, "cat", [2])
    delivery = add(project, source)
    assert sorted(taken(project)) == ["cat/1.png", "cat/2.png"]
    assert [remark.place for remark in delivery.known] == ["cat/1.png"]
    assert [row["path"] for row in rejected(project)] == ["cat/3.png"]


def test_strict_adds_nothing_if_anything_is_refused(project, source):
    place(source, "cat", [1])
    (source / "cat" / "2.png").write_bytes(b"")
    with pytest.raises(IntakeError, match="nothing was added") as caught:
        add(project, source, strict=True)
    assert caught.value.problems == ["cat/2.png is empty (0 bytes)"]
    assert taken(project) == {}
    assert len(rejected(project)) == 1


def test_where_everything_is_refused_it_is_an_error(project, source):
    place(source, "cat", [1])[0].write_bytes(b"")
    before = everything(project.data / "images")
    with pytest.raises(IntakeError, match="nothing was added"):
        add(project, source)
    assert everything(project.data / "images") == before


def test_a_dry_run_reports_the_same_and_changes_nothing(project, source):
    place(source, "cat", [1, 2])
    (source / "cat" / "3.png").write_bytes(b"")
    before = everything(project.root)
    delivery = add(project, source, dry_run=True)
    assert (len(delivery.images), len(delivery.refused)) == (2, 1)
    assert everything(project.root) == before
    real = add(project, source)
    assert (real.images, real.refused) == (delivery.images, delivery.refused)


def test_move_takes_the_added_files_away_and_no_others(project, source):
    place(source, "cat", [1, 2])
    place(source, "cat", [1], prefix="copy of ")
    (source / "cat" / "3.png").write_bytes(b"")
    add(project, source, move=True)
    assert sorted(path.name for path in source.glob("*/*")) == ["3.png", "copy of 1.png"]


def test_nothing_is_left_in_the_scratch_folder(project, source):
    place(source, "cat", [1])
    add(project, source)
    assert list(project.scratch.iterdir()) == []


def test_an_interrupted_add_adds_nothing_and_the_next_one_all(project, source):
    place(source, "cat", range(600))
    code = (
        "import sys; from pathlib import Path; from dayfold.cycle import adding\n"
        "from dayfold.project.layout import Project\n"
        "print('go', flush=True)\n"
        f"adding.add(Project(Path({str(project.root)!r})), Path({str(source)!r}), day={DAY!r})\n"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert running.stdout.readline() == b"go\n"
    while not list(project.scratch.glob("adding/stage/*")):
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGINT)  # as Ctrl-C does: the workers get it too
    _, said = running.communicate(timeout=60)
    assert said.rstrip().endswith(b"KeyboardInterrupt")
    assert taken(project) == {}
    assert list(project.scratch.iterdir()) == []
    assert len(add(project, source).images) == 600
    assert len(taken(project)) == 600


ODD = [
    "'quotes' and \"more\".png",
    "-rf.png",
    "=cmd().png",
    "[red]x[red].png",
    "a,b;c.png",
    "$(reboot).png",
    "%s%d{}.png",
    "x" * 251 + ".png",
    "no ending",
    "日本語.png",
]


def test_odd_names_come_through_as_they_are(project, source):
    (source / "-=dog").mkdir()
    for number, name in enumerate(ODD):
        (source / "-=dog" / name).write_bytes(png(number))
    add(project, source)
    assert taken(project) == {f"-=dog/{name}": png(number) for number, name in enumerate(ODD)}
    snapshot.run(project, params_file.read(project.params))
    paths = set(manifest.history(project, DAY).images["path"])
    assert paths == {f"data/images/{DAY}/-=dog/{name}" for name in ODD}


def test_unprintable_names_are_listed_escaped_and_stay(project, source, capsys):
    place(source, "cat", [1])
    names = [b"two\nlines.png", b"\x1b[2Jclear.png", b"\xff.png", b"tab\t.png"]
    for name in names:
        with open(os.fsencode(source / "cat") + b"/" + name, "wb") as file:  # noqa: PTH123
            file.write(png(9))
    delivery = add(project, source)
    assert len(delivery.refused) == 4
    assert all(str(remark).isprintable() for remark in delivery.refused)
    text = project.rejected(DAY).read_text()
    assert len(text.splitlines()) == 5
    assert "cat/two\\nlines.png" in text
    assert "cat/\\udcff.png" in text


def test_letters_that_turn_the_terminal_s_text_round_are_escaped(project, source):
    name = "gnp.\u202eexe.png"
    (source / "cat").mkdir()
    (source / "cat" / name).write_bytes(png(1))
    assert len(add(project, source).images) == 1
    known = add(project, source).known
    assert str(known[0]) == (
        f"cat/gnp.\\u202eexe.png has the same bytes as data/images/{DAY}/cat/gnp.\\u202eexe.png"
    )


def test_no_cell_of_the_list_is_a_formula(project, source):
    place(source, "cat", [1])
    for label in ("=1+1", "+2", "-3", "@sum"):
        (source / label).mkdir()
        (source / label / "x.png").write_bytes(b"")
    add(project, source, yes=True)
    assert [row["path"] for row in rejected(project)] == [
        "./+2/x.png",
        "./-3/x.png",
        "./=1+1/x.png",
        "./@sum/x.png",
    ]


def test_names_are_composed_and_never_differ_by_case_only(project, source):
    (source / "cat").mkdir()
    decomposed = unicodedata.normalize("NFD", "é.png")
    for number, name in enumerate((decomposed, "É.png", "a.png", "A.png")):
        (source / "cat" / name).write_bytes(png(number))
    add(project, source)
    names = [path.partition("/")[2] for path in taken(project)]
    assert "a.png" in names or "A.png" in names
    assert all(unicodedata.is_normalized("NFC", name) for name in names)
    assert len({name.casefold() for name in names}) == 4
    assert sorted(taken(project).values()) == sorted(map(png, range(4)))


@pytest.fixture
def elsewhere():
    """A folder that every user can come to."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_folder_that_cannot_be_read_is_listed_and_the_others_are_taken(elsewhere):
    place(elsewhere, "cat", [1])
    place(elsewhere, "dog", [2])
    (elsewhere / "dog").chmod(0)
    delivery = Delivery()
    me = os.geteuid()
    if me == 0:  # nothing is closed to root
        os.seteuid(65534)
    try:
        found = walk(elsewhere, delivery)
    finally:
        os.seteuid(me)
        (elsewhere / "dog").chmod(0o755)
    assert [one.place for one in found] == ["cat/1.png"]
    assert list(map(str, delivery.refused)) == ["dog cannot be read (Permission denied)"]


@pytest.mark.parametrize("top", ["", "today/"])
def test_a_zip_is_taken_as_the_folder_that_it_was(project, tmp_path, top):
    path = tmp_path / "scans.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{top}cat/1.png", png(1))
        archive.writestr(f"{top}dog/2.png", png(2))
        archive.writestr(f"{top}dog/3.png", b"<html>")
        archive.writestr("../4.png", png(4))
        archive.writestr("__MACOSX/dog/._2.png", b"")
    delivery = add(project, path)
    assert taken(project) == {"cat/1.png": png(1), "dog/2.png": png(2)}
    assert sorted(remark.place for remark in delivery.refused) == ["../4.png", "dog/3.png"]
    assert list(project.scratch.iterdir()) == []
    with pytest.raises(IntakeError, match="is an archive"):
        add(project, path, move=True)


def test_what_is_neither_a_folder_nor_an_archive_is_refused(project, source):
    (file,) = place(source, "cat", [1])
    with pytest.raises(IntakeError, match="is neither a folder nor a zip or tar archive"):
        add(project, file)
    with pytest.raises(IntakeError, match="is not there"):
        add(project, source / "nowhere")


def test_labels_of_a_csv_and_its_groups_reach_the_manifest(project, source):
    place(source / "deep", "er", range(4))
    place(source, "not-a-class", [9])
    file = source / "labels.csv"
    rows = [f"deep/er/{n}.png,{'cat' if n < 3 else 'dog'},p{n % 2}\n" for n in range(4)]
    file.write_text("path,label,group\n" + "".join(rows) + "deep/er/7.png,cat,p1\n")
    delivery = add(project, source, labels=file)
    assert sorted(taken(project)) == ["cat/0.png", "cat/1.png", "cat/2.png", "dog/3.png"]
    assert [str(remark) for remark in delivery.refused] == ["deep/er/7.png (line 6) is not there"]
    snapshot.run(project, params_file.read(project.params))
    images = manifest.history(project, DAY).images
    assert dict(images.select("image", "group").iter_rows()) == {
        sha256(png(number)): f"p{number % 2}" for number in range(4)
    }
    assert images.group_by("group").agg(split="split").explode("split").unique().height == 2


def test_a_group_that_is_told_later_holds_on_the_day_itself_and_not_afterwards(project, source):
    place(source, "cat", range(3))
    file = source / "labels.csv"
    add(project, source)
    file.write_text("path,label,group\ncat/0.png,cat,p0\ncat/1.png,cat,p1\n")
    assert len(add(project, source, labels=file).known) == 2
    snapshot.run(project, params_file.read(project.params))
    groups = dict(manifest.history(project, DAY).images.select("path", "group").iter_rows())
    assert [groups[f"data/images/{DAY}/cat/{n}.png"] for n in range(3)] == ["p0", "p1", ""]
    open_day(project, DAYS[1])
    file.write_text("path,label,group\ncat/0.png,cat,p0\ncat/1.png,cat,p9\n")
    options = Options(labels=file)
    _, delivery = adding.add(project, source, day=DAYS[1], options=options)
    assert [str(one) for one in delivery.warned if one.place != "."] == [
        "cat/1.png is known and keeps the group 'p1' of its day; 'p9' is not taken"
    ]
    assert not project.groups(DAYS[1]).exists()


def test_the_patient_of_a_dicom_file_reaches_the_manifest_and_holds_by_hand_too(project, source):
    (source / "cyst").mkdir()
    (project.images(DAY) / "cyst").mkdir()
    draw = np.random.default_rng(0)
    for number in range(4):
        pixels = draw.integers(0, 256, (16, 16)).astype("uint8")
        data = scan(pixels, PatientID=f"P{number % 2}")
        folder = source if number < 2 else project.images(DAY)
        (folder / "cyst" / f"{number}.dcm").write_bytes(data)
    add(project, source)
    assert project.groups(DAY).exists() is False
    snapshot.run(project, params_file.read(project.params))
    images = manifest.history(project, DAY).images
    groups = {path[-5]: group for path, group in images.select("path", "group").iter_rows()}
    assert groups["0"] == groups["2"] != groups["1"] == groups["3"]
    assert groups["0"].startswith("patient-")


def test_a_path_s_own_group_comes_before_the_ids_of_a_dicom_file(project, source):
    params_file.edit(project.params, {"data.group": r"/(p\d+)-"})
    pixels = np.zeros((16, 16), "uint8")
    (source / "cyst").mkdir()
    (source / "cyst" / "p7-1.dcm").write_bytes(scan(pixels, PatientID="A"))
    (source / "cyst" / "1.dcm").write_bytes(scan(pixels + 1, PatientID="A"))
    (source / "cyst" / "1.png").write_bytes(png(1))
    delivery = add(project, source)
    assert [str(remark) for remark in delivery.refused] == [
        "cyst/1.png has no group in it by data.group"
    ]
    snapshot.run(project, params_file.read(project.params))
    groups = sorted(manifest.history(project, DAY).images["group"])
    assert groups[0] == "p7"
    assert groups[1].startswith("patient-")


def many(source, count):
    for number in range(count):
        place(source, f"class-{number}", [number])


def test_a_class_an_image_is_asked_about(project, source):
    many(source, shapes.FEW)
    with pytest.raises(IntakeError, match="looks odd, so nothing was added") as caught:
        add(project, source)
    assert "wrong folder, one level too high or low?" in caught.value.problems[0]
    assert "--yes" in caught.value.mend
    assert taken(project) == {}
    delivery = add(project, source, yes=True)
    assert len(delivery.images) == shapes.FEW
    assert "is odd" in str(delivery.warned[0])


def test_few_classes_of_one_image_are_a_day_like_any_other(project, source):
    many(source, shapes.FEW - 1)
    assert len(add(project, source).images) == shapes.FEW - 1


def test_classes_named_like_days_and_very_many_files_are_asked_about():
    (said,) = shapes.suspicions({"2025-06-01": 9, "20250602": 9, "cat": 3}, {"cat"})
    assert "dayfold backfill" in said
    assert shapes.suspicions({"2025-06-01": 9}, {"2025-06-01"}) == []
    assert shapes.suspicions({"cat": shapes.MANY - 1}, set()) == []
    (said,) = shapes.suspicions({"cat": 100_000}, set())
    assert "100000 files" in said


def test_very_many_files_are_asked_about_before_any_is_read(project, source, monkeypatch):
    monkeypatch.setattr(shapes, "MANY", 500)
    (source / "cat").mkdir()
    first = source / "cat" / "0.png"
    first.write_bytes(b"not read")
    for number in range(1, shapes.MANY):
        os.link(first, source / "cat" / f"{number}.png")
    with pytest.raises(IntakeError, match="looks odd") as caught:
        add(project, source)
    assert caught.value.problems == [f"{shapes.MANY} files are a great many for one day"]


def test_an_empty_folder_is_nothing_new_and_an_empty_class_is_said(project, source):
    assert add(project, source).images == []
    (source / "cat").mkdir()
    delivery = add(project, source)
    assert list(map(str, delivery.warned)) == ["cat is a class folder without an image"]


def test_one_image_is_a_day(project, source):
    place(source, "cat", [1])
    assert len(add(project, source).images) == 1


@pytest.mark.parametrize(
    ("made", "mend"),
    [
        (["today/cat/1.png", "more/dog/2.png"], "one level deeper"),
        (["1.png", "2.png"], "give the folder above"),
    ],
)
def test_a_wrong_depth_is_told_with_the_right_one(project, source, made, mend):
    for number, name in enumerate(made):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(png(number))
    with pytest.raises(IntakeError) as caught:
        add(project, source)
    assert mend in caught.value.mend


def test_the_same_bytes_as_in_a_class_of_today_are_refused_with_the_way_to_correct_it(
    project, source
):
    place(source, "cat", [1])
    add(project, source)
    (source / "cat").rename(source / "dog")
    place(source, "dog", [2])
    delivery = add(project, source)
    (refused,) = delivery.refused
    assert f"data/images/{DAY}/cat/1.png has the same bytes as 'cat'" in str(refused)
    assert f"dayfold relabel data/images/{DAY}/cat/1.png --to dog" in str(refused)


def test_the_table_names_every_outcome_and_no_more_lines_than_are_read(project, source, capsys):
    place(source, "cat", range(3))
    place(source, "cat", [1], prefix="copy of ")
    for number in range(12):
        (source / "cat" / f"[bold]bad-{number:02}.png").write_bytes(b"")
    (source / "cat" / "photo.png").write_bytes(encoded_jpeg())
    (source / "cat" / ".hidden").touch()
    show(arrivals.table(project, DAY, add(project, source), Options()))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == [DAY, "files"]
    assert lines[1].split() == ["added", "4", "cat", "4"]
    assert lines[2].split()[:3] == ["already", "known", "1"]
    assert lines[3].split()[:3] == ["refused", "12", "cat/[bold]bad-00.png"]
    assert lines[13].strip() == f"and 2 more, in data/rejected/{DAY}.csv"
    assert lines[14].split()[:3] == ["warned", "1", "cat/photo.png"]
    assert lines[15].split()[:2] == ["ignored", "1"]


def encoded_jpeg():
    return encoded(Image.new("RGB", (9, 9)), "JPEG")


def test_snapshot_makes_the_same_checks_and_lists_them_all(project):
    folder = project.images(DAY)
    place(folder, "cat", [1])
    (folder / "cat" / "page.png").write_text("<html>")
    (folder / "cat" / "deeper").mkdir()
    (folder / "loose.png").write_bytes(png(2))
    (folder / "cat" / "link.png").symlink_to(folder / "cat" / "1.png")
    (folder / "dog").mkdir()
    (folder / "dog" / "same.png").write_bytes(png(1))
    with pytest.raises(IntakeError, match="6 problems") as caught:
        snapshot.run(project, params_file.read(project.params))
    listed = caught.value.problems
    assert len(listed) == 6
    for name in (
        "cat/page.png",
        "cat/deeper",
        "loose.png",
        "cat/link.png",
        "cat/1.png",
        "dog/same.png",
    ):
        assert sum(line.startswith(f"data/images/{DAY}/{name} ") for line in listed) == 1
