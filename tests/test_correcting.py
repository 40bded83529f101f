"""Labels are corrected and images withdrawn as events of the open day; then a day is made of it."""

import json
import re
import shutil
from functools import partial

import polars as pl
import pytest

import dayfold
from builders import RealProject, png, table
from dayfold.demo import DAYS
from dayfold.ledger import manifest
from dayfold.serve import auditing

pytestmark = pytest.mark.slow
ONE, TWO, THREE, FOUR = DAYS[:4]
HEADER = "action,image,label,reason\n"


def lines_of(project):
    return table(project.corrections(FOUR))


def files(project, day, label):
    return sorted(
        str(path.relative_to(project.root)) for path in project.images(day).glob(f"{label}/*")
    )


@pytest.fixture
def relabel(copy):
    def run(*words, code=0, day=FOUR, command="relabel"):
        return copy.dayfold(command, *words, "--day", day, code=code)

    return run


@pytest.fixture
def withdraw(relabel):
    return partial(relabel, command="withdraw")


def test_a_relabel_opens_the_day_and_is_undone_by_one_word_a_folder_too(copy, relabel, withdraw):
    path = files(copy, ONE, "3")[0]
    said = relabel(path, "--to", "5")
    assert f"1 label corrected, effective {FOUR}, in data/corrections/{FOUR}.csv:\n  {path}" in said
    (line,) = lines_of(copy)
    row = manifest.history(copy, THREE).images.filter(path=path).row(0, named=True)
    assert (line["action"], line["image"], line["label"]) == ("relabel", row["image"], "5")
    # The open day is meant where none is named; the same again changes nothing.
    assert "1 image already as asked" in copy.dayfold("relabel", path, "--to", "5")
    assert "1 correction undone" in copy.dayfold("relabel", path, "--undo")
    assert copy.corrections(FOUR).read_text() == HEADER
    relabel(path, "--to", "5")
    assert "1 correction undone" in relabel(path, "--to", "3")
    assert copy.corrections(FOUR).read_text() == HEADER
    first, second, third = files(copy, ONE, "3")[:3]
    relabel(first, second, "--to", "5")
    withdraw(third, "--reason", "blurred")
    folder = f"data/images/{ONE}/3"
    assert "2 corrections undone" in relabel(folder, first, "--undo")
    assert [line["action"] for line in lines_of(copy)] == ["withdraw"]
    assert f"{first} has no relabel on {FOUR} to undo" in relabel(folder, "--undo", code=1)
    assert "1 correction undone" in withdraw(folder, "--undo")
    assert lines_of(copy) == []


def test_undoing_a_rename_says_what_else_it_undoes_and_what_stays(copy, relabel):
    path = files(copy, ONE, "3")[0]
    relabel(path, "--to", "5")
    new = copy.images(FOUR) / "3" / "new.png"
    new.parent.mkdir()
    new.write_bytes(png(1))
    relabel("--class", "3", "--to", "three")
    said = relabel("--class", "3", "--undo")
    assert re.search(r"\d+ corrections undone \(\d+ to three, 1 to 5\):", said)
    assert f"not moved back: 1 image of the open day in data/images/{FOUR}/three" in said
    assert lines_of(copy) == []


def test_images_are_named_by_path_folder_id_or_a_copy_and_classes_not_by_case(
    copy, shell, relabel, tmp_path
):
    first, second, third = files(copy, ONE, "3")[:3]
    shutil.copy(copy.root / second, tmp_path / "a copy.png")
    images = manifest.history(copy, THREE).images
    image = images.filter(path=third)["image"].item()
    relabel(first, str(tmp_path / "a copy.png"), image, "--to", "5")
    assert len(lines_of(copy)) == 3
    within = copy.images(ONE) / "3"
    said = shell(within, "dayfold", "relabel", ".", "--to", "5")
    assert f"{len(files(copy, ONE, '3')) - 3} labels corrected" in said
    assert "3 images already as asked" in said
    relabel("--class", "2", "--to", "three")
    said = relabel(files(copy, ONE, "5")[0], "--to", "Three", code=1)
    assert "classes 'Three' and 'three' differ by case or Unicode form only" in said


def test_all_that_cannot_be_corrected_is_listed_and_nothing_is_done(copy, relabel, withdraw):
    path = files(copy, ONE, "3")[0]
    said = relabel(path, "nowhere.png", f"data/images/{ONE}/9", "--to", " .x", code=1)
    assert "3 problems; nothing was corrected:" in said
    assert "- nowhere.png is not an image of this project" in said
    assert f"- data/images/{ONE}/9 is not an image of this project" in said
    assert "- the class ' .x' is no class name (empty, with /, a dot first or a space" in said
    assert not copy.corrections(FOUR).exists()
    assert "needs a reason" in withdraw(path, code=1)
    assert f"has no withdraw on {FOUR} to undo" in withdraw(path, "--undo", code=1)
    assert f"{THREE} is sealed" in relabel(path, "--to", "5", code=1, day=THREE)
    assert "Name images, or use --class or --from" in relabel("--to", "5", code=1)
    assert "need either --to CLASS" in relabel(path, code=1)
    withdraw(path, "--reason", "no consent")
    assert "was withdrawn; --undo that first" in relabel(path, "--to", "5", code=1)
    assert f"{FOUR} is open and not sealed" in relabel(path, "--to", "5", code=1, day=DAYS[4])
    withdraw(path, "--undo")
    assert lines_of(copy) == []


def test_a_file_of_the_open_day_is_moved(copy, relabel, withdraw, digits):
    copy.dayfold("add", str(digits / FOUR), "--day", FOUR)
    count = len(files(copy, FOUR, "*"))
    path, other = files(copy, FOUR, "*")[:2]
    name = path.rpartition("/")[2]
    assert "1 image of the open day moved" in relabel(path, "--to", "new")
    assert files(copy, FOUR, "new") == [f"data/images/{FOUR}/new/{name}"]
    assert lines_of(copy) == []
    # A name that is taken is no reason to lose a file.
    shutil.copy(copy.root / other, copy.images(FOUR) / "new" / other.rpartition("/")[2])
    relabel(other, "--to", "new")
    assert len(files(copy, FOUR, "new")) == 3
    assert len(files(copy, FOUR, "*")) == count + 1
    moved = files(copy, FOUR, "new")[0]
    assert "delete the file" in withdraw(moved, "--reason", "blurred", code=1)
    assert "move it back with relabel" in relabel(moved, "--undo", code=1)
    relabel("--class", "new", "--to", path.split("/")[3])
    assert files(copy, FOUR, "new") == []
    assert not (copy.images(FOUR) / "new").exists()
    relabel("--class", "3", "--to", "new")
    moved = files(copy, FOUR, "new")
    relabel("--class", "3", "--undo")
    assert lines_of(copy) == []
    assert files(copy, FOUR, "new") == moved


def test_decisions_come_from_a_table_all_or_none(copy, relabel, tmp_path):
    first, second, third, fourth = files(copy, ONE, "3")[:4]
    audit = tmp_path / "audit.csv"
    header = "image,path,label,suggested,score,decision\n"
    audit.write_text(f"{header},{first},3,5,0.9,5\n,{second},3,5,0.8,maybe\x07\n,no,3,5,0.8,5\n")
    said = relabel("--from", str(audit), code=1)
    assert r"line 3: the class 'maybe\x07' has unprintable letters" in said
    assert "line 4: no is not an image of this project" in said
    assert not copy.corrections(FOUR).exists()
    rows = f",{first},3,5,0.9,5\n,{second},3,5,0.8,keep\n,{third},3,5,0.7,\n"
    audit.write_text(f"{header}{rows},{fourth},3,,0.6,withdraw\n")
    twice = f"{header}{rows},{first},3,,0.6,withdraw\n"
    audit.write_text(twice)
    assert f"line 5: {first} is decided on line 2" in relabel("--from", str(audit), code=1)
    audit.write_text(f"{header}{rows},{fourth},3,,0.6,withdraw\n")
    assert "2 labels corrected" in relabel("--from", str(audit))
    assert {line["action"] for line in lines_of(copy)} == {"relabel", "withdraw"}
    assert {line["reason"] for line in lines_of(copy)} == {"decided in audit.csv"}
    # As a spreadsheet may save it; with the apostrophe that keeps a cell from being computed.
    audit.write_text(f"\ufeffpath;decision\r\n{second};'=5\r\n")
    relabel("--from", str(audit))
    assert "=5" in {line["label"] for line in lines_of(copy)}
    # It begins words with a capital, and a quote that is never closed hides all rows below.
    audit.write_text(f"path,decision\n{second},Keep\n{third},Withdraw\n")
    assert "1 label corrected" in relabel("--from", str(audit))
    assert not {"Keep", "Withdraw"} & {line["label"] for line in lines_of(copy)}
    audit.write_text(f"path,decision\n{first},withdraw\n")
    assert "1 correction undone" in relabel("--from", str(audit))
    audit.write_text(f'path,decision\n"{second},5\n{third},5\n')
    assert "cannot be read as CSV" in relabel("--from", str(audit), code=1)
    audit.write_text("path,verdict\n")
    assert "without `decision` and `path`" in relabel("--from", str(audit), code=1)


def test_a_merge_is_undone_as_one(copy, relabel, digits):
    relabel("--class", "3", "--to", "5")
    said = relabel("--class", "5", "--undo", code=1)
    assert f"no image of '5' was given another class on {FOUR}" in said
    assert "need either --to CLASS or --undo" in relabel(
        "--class", "3", "--to", "5", "--undo", code=1
    )
    relabel("--class", "3", "--undo")
    assert lines_of(copy) == []
    said = relabel("--class", "12", "--to", "5", code=1)
    assert "no image is of the class '12' (there are 0, 1, 2, 3, 4, 5, 6, 7)" in said
    assert "class without images until now: café\n" in relabel("--class", "3", "--to", "cafe\u0301")
    assert {line["label"] for line in lines_of(copy)} == {"café"}
    said = copy.dayfold("add", str(digits / FOUR), "--day", FOUR, "--dry-run")
    assert "3 has new images, and all its earlier ones were relabelled café; if" in said
    said = relabel("--class", "3", "--to", "5", code=1)
    assert "no image is of the class '3' (there are 0, 1, 2, 4, 5, 6, 7, café)" in said


@pytest.fixture(scope="module")
def corrected(three_days, shell, digits, tmp_path_factory):
    """Three days, and a fourth that renames 0, merges 1 into 2 and withdraws a third of 3."""
    root = tmp_path_factory.mktemp("corrected") / "scans"
    shutil.copytree(three_days.root, root, symlinks=True)
    project = RealProject(root)
    shell(root, "dayfold", "add", str(digits / FOUR), "--day", FOUR)
    shell(root, "dayfold", "relabel", "--class", "0", "--to", "zero")
    shell(root, "dayfold", "relabel", "--class", "1", "--to", "2")
    some = files(project, ONE, "3")[::3]
    shell(root, "dayfold", "withdraw", *some, "--reason", "no consent")
    (root.parent / "repro.log").write_text(shell(root, "dvc", "repro"))
    shell(root, "dayfold", "seal")
    return project


def test_a_withdrawn_image_is_in_nothing_that_a_day_reads_or_writes(corrected):
    gone = manifest.history(corrected, FOUR).withdrawn
    withdrawn = manifest.history(corrected, THREE).images.filter(pl.col("image").is_in(gone))
    assert set(withdrawn["split"]) == {"train", "validation", "test"}
    for path in (corrected.replay, corrected.predictions):
        images = {row["image"] for row in table(path)}
        assert images
        assert not images & gone
    text = corrected.plot("flips").read_text()
    assert not any(path in text for path in withdrawn["path"])


def test_all_that_is_measured_goes_by_the_corrected_labels(corrected):
    labels = {"2", "3", "4", "5", "6", "7", "8", "zero"}
    assert json.loads(corrected.class_figures.read_bytes()).keys() == labels
    rows = table(corrected.evaluation(FOUR))
    assert {row["label"] for row in rows} == labels
    # Yesterday's model too: what it calls by the old names it calls by the new ones.
    assert {row["predicted"] for row in rows} <= labels
    shown = table(corrected.plot("classification"))
    assert {row["label"] for row in shown} == labels
    replayed = table(corrected.replay)
    old = {row["path"].split("/")[3] for row in replayed if row["label"] == "2"}
    assert old == {"1", "2"}
    # A class without images keeps its row and is never predicted, and another name is no new one.
    made = json.loads(corrected.provenance.read_bytes())
    assert made["classes"] == [*"01234567", "8", "zero"]
    assert made["retired_classes"] == ["0", "1"]
    assert made["new_classes"] == ["8"]
    assert "\nnew       8\n" in (corrected.root.parent / "repro.log").read_text()
    assert {row["predicted"] for row in table(corrected.predictions)} <= labels
    # A sealed day of corrections comes back as it was.
    assert "up to date" in corrected.dvc("repro")
    assert corrected.git("status", "--porcelain") == ""


def test_a_retired_class_is_no_answer_no_choice_and_said_on_the_papers(corrected, tmp_path):
    kept = (*"2345678", "zero")
    model = dayfold.load(corrected.root, FOUR)
    assert model.classes == kept
    (answer,) = model.predict(corrected.root / files(corrected, ONE, "3")[0])
    assert set(answer.probabilities) == set(kept)
    assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert auditing.run(corrected, top=1).classes == kept
    corrected.dayfold("export", str(tmp_path / "m.safetensors"), "--day", FOUR)
    readme = (tmp_path / "m.README.md").read_text()
    assert "0. `0` (retired: its probability is 0)\n1. `1` (retired" in readme
    assert "\n9. `zero`\n" in readme
    card = (tmp_path / "m.MODEL_CARD.md").read_text()
    assert "tells 8 classes apart" in card
    assert "Retired, because no image has their label any more: 0, 1." in card
    assert not re.search(r"^\| [01] \|", card, re.MULTILINE)


def test_earlier_rows_stay_and_are_marked(corrected, three_days):
    cells = {(row["day"], row["cohort"]): row for row in table(corrected.plot("cohorts"))}
    for row in table(three_days.plot("cohorts")):
        mine = cells[row["day"], row["cohort"]]
        assert {key: mine[key] for key in row if key != "corrected"} == {
            key: row[key] for key in row if key != "corrected"
        }
    test = manifest.history(corrected, FOUR).corrections.filter(split="test")
    counted = {cohort: part["image"].n_unique() for (cohort,), part in test.group_by("day")}
    for (day, cohort), row in cells.items():
        assert int(row["corrected"]) == (counted.get(cohort, 0) if day < FOUR else 0)
    said = corrected.dayfold("log").splitlines()
    lines = [line for line in said if not line.startswith("* ")]  # another mark's
    assert [line.count("~") for line in lines[1:5]] == [1, 1, 1, 0]
    assert lines[8].startswith(f"~ up to {test['image'].n_unique()} test image")
    gone = len(manifest.history(corrected, FOUR).withdrawn)
    assert lines[9] == f"{gone} withdrawn images are not counted: data/corrections/"
    # What was new on a day goes by the names of then, and so do its figures.
    assert [line.split()[2] for line in lines[1:5]] == ["6", "7", "8", "8"]
    assert lines[4].split()[3] == "+8"
    last = corrected.dayfold("log", "-n", "1").splitlines()
    assert last[1].split() == lines[4].split()
    assert last[2] == "3 earlier days: dayfold log -n 4"
