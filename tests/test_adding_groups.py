"""What `add` is told of patients and studies reaches the manifest."""

import shutil

import numpy as np
import pytest

from builders import DAYS, add, open_day, place, png, run_stages, taken
from dayfold.cycle import adding
from dayfold.cycle.adding import Options
from dayfold.errors import ParamsError, RefusedError
from dayfold.ledger import grouping, manifest
from dayfold.project import params as params_file
from dayfold.project.console import show
from dayfold.project.files import sha256
from dayfold.stages import snapshot
from test_dicom import scan

DAY = DAYS[0]


def test_labels_of_a_csv_and_its_groups_reach_the_manifest(receiving, source):
    place(source / "deep", "er", range(4))
    place(source, "not-a-class", [9])
    file = source / "labels.csv"
    rows = [f"deep/er/{n}.png,{'cat' if n < 3 else 'dog'},p{n % 2}\n" for n in range(4)]
    file.write_text("path,label,group\n" + "".join(rows) + "deep/er/7.png,cat,p1\n")
    delivery = add(receiving, source, labels=file)
    assert sorted(taken(receiving)) == ["cat/0.png", "cat/1.png", "cat/2.png", "dog/3.png"]
    assert [str(remark) for remark in delivery.refused] == ["deep/er/7.png (line 6) is not there"]
    run_stages(receiving, snapshot)
    images = manifest.history(receiving, DAY).images
    assert dict(images.select("image", "group").iter_rows()) == {
        sha256(png(number)): f"p{number % 2}" for number in range(4)
    }
    assert images.group_by("group").agg(split="split").explode("split").unique().height == 2


def test_groups_that_are_spelt_in_two_ways_are_told(receiving, source):
    place(source, "er", range(4))
    file, spelt = source / "labels.csv", ("P01", "p1", "P-01", "P10")
    rows = [f"er/{number}.png,cat,{group}\n" for number, group in enumerate(spelt)]
    file.write_text("path,label,group\n" + "".join(rows))
    (remark,) = add(receiving, source, labels=file).warned
    assert str(remark).startswith("'P-01' and 'P01' and 'p1' are taken for different patients")
    assert grouping.alike(["1-12"], ["11-2", "P1", "112"]) == []
    assert grouping.alike(["17.0"], ["017", "18"]) == ["'017' and '17.0'"]


def test_a_group_that_is_told_later_holds_on_the_day_itself_and_not_afterwards(
    receiving, source, capsys
):
    place(source, "cat", range(3))
    file = source / "labels.csv"
    add(receiving, source)
    file.write_text("path,label,group\ncat/0.png,cat,p0\ncat/1.png,cat,p1\n")
    delivery = add(receiving, source, labels=file)
    assert len(delivery.known) == 2
    show(delivery.table(DAY))
    assert "grouped            2" in capsys.readouterr().out
    assert delivery.next_step() == "next: dvc repro"
    assert add(receiving, source, labels=file).next_step() == "nothing new"
    run_stages(receiving, snapshot)
    groups = dict(manifest.history(receiving, DAY).images.select("path", "group").iter_rows())
    assert [groups[f"data/images/{DAY}/cat/{n}.png"] for n in range(3)] == ["p0", "p1", ""]
    open_day(receiving, DAYS[1])
    file.write_text("path,label,group\ncat/0.png,cat,p0\ncat/1.png,cat,p9\n")
    options = Options(labels=file)
    delivery = adding.add(receiving, source, day=DAYS[1], options=options)
    assert [str(one) for one in delivery.warned if one.place != "labels.csv"] == [
        "cat/1.png is known and keeps the group 'p1' of its day; 'p9' is ignored"
    ]
    assert grouping.read_groups(receiving, DAYS[1]) == {}


def test_the_patient_of_a_dicom_file_reaches_the_manifest_and_holds_by_hand_too(receiving, source):
    (source / "cyst").mkdir()
    (receiving.images(DAY) / "cyst").mkdir()
    draw = np.random.default_rng(0)
    for number in range(4):
        pixels = draw.integers(0, 256, (16, 16)).astype("uint8")
        data = scan(pixels, PatientID=f"P{number % 2}")
        folder = source if number < 2 else receiving.images(DAY)
        (folder / "cyst" / f"{number}.dcm").write_bytes(data)
    add(receiving, source)
    assert grouping.read_groups(receiving, DAY) == {}
    run_stages(receiving, snapshot)
    images = manifest.history(receiving, DAY).images
    groups = {path[-5]: group for path, group in images.select("path", "group").iter_rows()}
    assert groups["0"] == groups["2"] != groups["1"] == groups["3"]
    assert groups["0"].startswith("patient-")


def test_a_path_s_own_group_comes_before_the_ids_of_a_dicom_file(receiving, source):
    params_file.edit(receiving.params, {"data.group": r"/(p\d+)-"})
    pixels = np.zeros((16, 16), "uint8")
    (source / "cyst").mkdir()
    (source / "cyst" / "p7-1.dcm").write_bytes(scan(pixels, PatientID="A"))
    (source / "cyst" / "1.dcm").write_bytes(scan(pixels + 1, PatientID="A"))
    (source / "cyst" / "1.png").write_bytes(png(1))
    delivery = add(receiving, source)
    assert [str(remark) for remark in delivery.refused] == [
        "cyst/1.png has no patient id (data.group does not match)"
    ]
    (source / "cyst" / "p7-1.dcm").unlink()
    (source / "cyst" / "1.dcm").unlink()
    with pytest.raises(RefusedError, match="give another expression by --group REGEX"):
        add(receiving, source)
    run_stages(receiving, snapshot)
    groups = sorted(manifest.history(receiving, DAY).images["group"])
    assert groups[0] == "p7"
    assert groups[1].startswith("patient-")


@pytest.mark.parametrize(("patients", "lines"), [(1, 1), (2, 0)])
def test_dicom_files_that_an_anonymizer_gave_one_id_are_told(receiving, source, patients, lines):
    (source / "cyst").mkdir()
    for number in range(20):
        data = scan(np.full((16, 16), number, "uint8"), PatientID=f"ANON{number % patients}")
        (source / "cyst" / f"{number}.dcm").write_bytes(data)
    said = add(receiving, source).notes
    assert len(said) == lines
    assert all("20 of 20 DICOM files name one patient" in line for line in said)


def patients_in(folder, *, ids=range(4), each=3, name="P{:03}_{}.png"):
    """A class folder with some images of each patient, named by their ids."""
    (folder / "cyst").mkdir(exist_ok=True)
    for one in ids:
        for number in range(each):
            (folder / "cyst" / name.format(one, number)).write_bytes(png(100 * one + number))


def comments(text):
    return [line.partition("#")[2] for line in text.splitlines()]


@pytest.mark.parametrize(
    ("name", "expression"),
    [
        ("P{:03}_{}.png", r"/(P\d+)"),
        ("case-{}_{}.png", r"/(case-\d+)"),
        ("patient{} {}.png", r"/(patient\d+)"),
        ("scan_pat_{:04}_{}.png", r"_(pat_\d+)"),
    ],
)
def test_names_that_look_like_ids_are_told_in_one_line_with_what_finds_them(
    receiving, source, name, expression
):
    patients_in(source, name=name)
    delivery = add(receiving, source)
    (line,) = delivery.notes
    assert delivery.next_step().startswith("next: name the patients as said above; or")
    assert line.startswith("12 of 12 names hold what looks like a patient's id")
    assert line.endswith(f"Before dvc repro: the same command with --group '{expression}'")
    assert len(add(receiving, source, group=expression).known) == 12
    run_stages(receiving, snapshot)
    assert manifest.history(receiving, DAY).images["group"].n_unique() == 4


def test_other_names_and_ids_that_come_once_or_were_told_are_not_spoken_of(receiving, source):
    for name in ("{}{:03}.png", "slice{}_{}.png", "P{}x{}.png"):
        patients_in(source, name=name)
        assert add(receiving, source, dry_run=True).notes == []
        shutil.rmtree(source / "cyst")
    patients_in(source, each=1)
    assert add(receiving, source, dry_run=True).notes == []
    patients_in(source)
    rows = [f"cyst/P{one:03}_{number}.png,cyst,{one}\n" for one in range(4) for number in range(3)]
    (source / "labels.csv").write_text("path,label,group\n" + "".join(rows))
    assert add(receiving, source, labels=source / "labels.csv").notes == []


def test_folders_of_a_csv_that_look_like_ids_belong_in_its_column_group(receiving, source):
    rows = []
    for number in range(6):
        path = source / f"case-{number // 3}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(number))
        rows.append(f"case-{number // 3}/{number}.png,cyst\n")
    (source / "labels.csv").write_text("path,label\n" + "".join(rows))
    (line,) = add(receiving, source, labels=source / "labels.csv").notes
    assert line.endswith("Before dvc repro: give them as the column group of the CSV")


def test_an_expression_is_written_with_the_comments_kept_and_what_it_finds_is_shown(
    receiving, source
):
    patients_in(source)
    before = receiving.params.read_text()
    for expression in ("P", "(P", "(P)(x)"):
        with pytest.raises(ParamsError, match=r"data\.group is"):
            add(receiving, source, group=expression)
    assert not any(receiving.images(DAY).iterdir())
    (dry,) = add(receiving, source, group=r"/(P\d+)_", dry_run=True).notes
    assert dry == (
        "4 patients by data.group: cyst/P000_0.png → P000; cyst/P001_0.png → P001; "
        "cyst/P002_0.png → P002"
    )
    assert receiving.params.read_text() == before
    said = add(receiving, source, group=r"/(P\d+)_").notes
    assert said == [dry, r"params.yaml: data.group is '/(P\d+)_'"]
    (line,) = [one for one in receiving.params.read_text().splitlines() if "  group:" in one]
    assert line.startswith(r"  group: '/(P\d+)_' ")
    assert comments(receiving.params.read_text()) == comments(before)


def test_of_an_export_that_is_given_again_the_new_expression_s_findings_are_shown(
    receiving, source
):
    patients_in(source)
    place(source, "cyst", [9], prefix="scan")
    add(receiving, source)
    finds = add(receiving, source, group=r"/(P\d+)_")
    assert "by data.group: cyst/scan9.png → no match; cyst/P000_0.png → P000; " in finds.notes[0]
    assert finds.next_step() == "next: dvc repro"
    same = add(receiving, source, group=r"/(P\d+)_")
    assert same.notes == finds.notes[:1]
    assert same.next_step() == "nothing new"


def test_patients_of_earlier_days_are_told(receiving, source):
    patients_in(source)
    add(receiving, source, group=r"/(P\d+)_")
    run_stages(receiving, snapshot)
    open_day(receiving, DAYS[1])
    patients_in(source, ids=range(3, 7), each=5)
    said = adding.add(receiving, source, day=DAYS[1]).notes
    assert said[1:] == [
        "1 of 4 patients is known from an earlier day: new images join the split of the old ones"
    ]


def test_another_expression_after_a_sealed_day_says_what_stays():
    said = [*grouping.regrouped(r"(P\d+)_", r"/(\d+)_", [DAYS[0]])]
    assert said[0] == r"params.yaml: data.group is '/(\d+)_', it was '(P\d+)_'"
    assert said[1].startswith("images of sealed days keep their groups and splits; new ones join")
