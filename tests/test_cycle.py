"""The day's cycle: what each step refuses, and what it leaves alone."""

import re
import shutil

import pytest
from PIL import Image

from builders import DAYS as SMALL_DAYS
from builders import add, png
from dayfold.cycle import opening
from dayfold.demo import DAYS
from dayfold.errors import IntakeError, ToolError
from dayfold.project import params, vcs
from dayfold.project.console import Stages

pytestmark = pytest.mark.slow
ONE, TWO, THREE, FOUR, FIVE = DAYS[:5]
STAGES = ("snapshot", "weights", "replay", "train", "evaluate", "curve")
SMALL_DAY = SMALL_DAYS[0]
SUNDAY = "2025-06-01"


def write_scans(folder, count=3, label="cyst", shade=0):
    (folder / label).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        color = (number * 40, shade, 7)
        Image.new("RGB", (24, 24), color).save(folder / label / f"{number}.png")
    return folder


def test_outside_a_project_commands_say_how_to_make_one_not_in_a_folder_in_use(tmp_path, shell):
    for words in (["status"], ["snapshot"], ["add", "."]):
        said = shell(tmp_path, "dayfold", *words, code=1)
        assert "No dayfold project" in said
        assert "dayfold init" in said
    (tmp_path / "scans").mkdir()
    mine = tmp_path / "scans" / "mine"
    mine.write_text("mine")
    assert "is not an empty folder" in shell(tmp_path, "dayfold", "init", "scans", code=1)
    assert mine.read_text() == "mine"
    mine.unlink()
    # Nothing is reported to the makers of DVC, which leaves what it sends in a temporary file.
    (tmp_path / "tmp").mkdir()
    words = ("dayfold", "init", "scans", "--weights", "random", "--image-size", "16")
    shell(tmp_path, *words, TMPDIR=str(tmp_path / "tmp"), DVC_NO_ANALYTICS="")
    reports = [path for path in (tmp_path / "tmp").rglob("*") if path.is_file()]
    assert not any(b"cmd_class" in path.read_bytes() for path in reports)


def test_days_come_in_order_and_each_step_refuses_what_is_not_its_turn(copy, tmp_path):
    source = str(write_scans(tmp_path / "new"))

    def add(*words, code=0):
        return copy.dayfold("add", *words, code=code)

    said = copy.dayfold("status")
    assert f"{THREE}, sealed; parent {TWO}" in said
    assert "dayfold add" in said
    assert f"2025-06-01 comes before {THREE}" in add("--day", "2025-06-01", code=1)
    assert "'2025-6-9' is not a day" in add("--day", "2025-6-9", code=1)
    assert "is in the future" in add("--day", "2999-01-01", code=1)
    said = add(source, "--day", THREE, code=1)
    assert f"{THREE} is sealed" in said
    assert "dayfold undo" in said
    before = copy.params.read_text()
    add("--day", FOUR)
    # Yesterday's outputs are the parent, and the comments are kept.
    assert copy.parent_model.read_bytes() == copy.model.read_bytes()
    assert copy.parent_predictions.read_bytes() == copy.predictions.read_bytes()
    after = copy.params.read_text()
    assert after == before.replace(f'"{THREE}"', f'"{FOUR}"').replace(f'"{TWO}"', f'"{THREE}"')
    assert copy.corrections(FOUR).read_text() == "action,image,label,reason\n"
    said = add("--day", DAYS[4], code=1)
    assert f"{FOUR} is open and not sealed" in said
    assert "dayfold seal" in said
    assert f"{FOUR} is already open" in add("--day", FOUR, code=1)
    add(source, "--day", FOUR)
    said = copy.dayfold("status")
    assert f"{FOUR}, open; parent {THREE}" in said
    assert "3 in 1 class; new: cyst" in said
    assert "next    dvc repro" in said
    said = copy.dayfold("seal", code=1)
    assert f"{FOUR} is not up to date" in said
    assert "snapshot" in said
    assert "dvc repro" in said
    params.edit(copy.params, {"dayfold": "0.0.1"})
    said = copy.dayfold("train", code=1)
    assert "pinned to dayfold 0.0.1" in said
    assert "pip install dayfold==0.0.1" in said


def test_a_sealed_day_that_was_made_again_or_changed_is_not_built_upon(copy):
    data = bytearray(copy.model.read_bytes())
    data[-1] ^= 1
    copy.model.unlink()
    copy.model.write_bytes(data)
    said = copy.dayfold("add", "--day", FOUR, code=1)
    assert f"{THREE} is not as it was sealed: data/model.safetensors" in said
    assert f"{THREE} is not as it was sealed" in copy.dayfold("status")
    copy.dvc("checkout", "--force", "data/model.safetensors")
    edited = copy.evaluation(THREE).read_text()
    copy.evaluation(THREE).write_text(edited.replace(THREE, ONE, 1))
    said = copy.dayfold("add", "--day", FOUR, code=1)
    assert f"{THREE} is not as it was sealed: data/evaluations/{THREE}.csv" in said
    assert "dayfold undo, to restore what was sealed" in said
    assert "is as it was sealed" in copy.dayfold("undo", "--yes")
    assert copy.evaluation(THREE).read_text() == edited
    copy.dayfold("add", "--day", FOUR)


def test_a_taken_name_is_changed_unless_that_would_change_the_group(receiving, tmp_path):
    add(receiving, write_scans(tmp_path / "am"))
    afternoon = write_scans(tmp_path / "pm", shade=99)
    add(receiving, afternoon, move=True)
    names = sorted(path.name for path in receiving.images(SMALL_DAY).glob("cyst/*"))
    assert len(names) == 6
    assert sum(bool(re.fullmatch(r"\d-[0-9a-f]{8}\.png", name)) for name in names) == 3
    assert list(afternoon.glob("cyst/*")) == []
    params.edit(receiving.params, {"data.group": r"/([^/]+)\.png$"})
    with pytest.raises(IntakeError) as caught:
        add(receiving, write_scans(tmp_path / "evening", 1, shade=55))
    said = "has a name that is taken today; another name would change its group"
    assert caught.value.problems == [f"cyst/0.png {said}"]


def test_what_brings_nothing_in_opens_no_day(copy, digits, tmp_path):
    source = write_scans(tmp_path / "scans-of-today")
    (source / "stray.png").write_bytes(b"")
    words = ("dayfold", "add", str(source), "--day", FOUR)
    assert "stray.png lies in no class folder" in copy.shell(*words, "--strict", code=4)
    said = copy.shell(*words, "--dry-run", code=4)
    assert re.search(r"would be added +3 ", said)
    assert re.search(r"refused +1 ", said)
    assert not copy.rejected(FOUR).exists()
    said = copy.dayfold("add", str(digits / ONE), "--day", FOUR)
    assert re.search(r"added +0 ", said)
    assert "has the same bytes as data/images" in said
    assert "nothing new" in said
    (tmp_path / "empty").mkdir()
    assert f"{FOUR} was not opened" in copy.dayfold("run", str(tmp_path / "empty"), "--day", FOUR)
    # A folder of dated folders holds nothing else, and needs no day.
    for name in (FOUR, "notes"):
        (tmp_path / "archive" / name).mkdir(parents=True)
    archive, nowhere = str(tmp_path / "archive"), str(tmp_path / "nowhere")
    assert "notes is not a day" in copy.dayfold("run", archive, code=1)
    (tmp_path / "archive" / "notes").rmdir()
    assert "holds dated folders" in copy.dayfold("run", archive, "--day", FOUR, code=1)
    assert f"{nowhere} is not there" in copy.dayfold("run", nowhere, code=1)
    assert f"{THREE}, sealed" in copy.dayfold("status")
    copy.shell(*words, code=4)
    assert len(copy.rejected(FOUR).read_text().splitlines()) == 2
    assert len(list(copy.images(FOUR).glob("*/*"))) == 3
    assert copy.groups(FOUR).read_text() == "image,group\n"


def test_seal_commits_the_day_alone_and_undo_takes_back_what_nobody_else_has(copy, shell, tmp_path):
    root = copy.root
    # A seal that was stopped before its tag is finished by the same command.
    head = copy.git("rev-parse", "HEAD")
    copy.git("tag", "--delete", f"day/{THREE}")
    assert f"sealed as day/{THREE}" in copy.dayfold("seal")
    assert copy.git("rev-parse", f"day/{THREE}^{{commit}}") == head
    (root / "notes.txt").write_text("mine")
    (root / "data" / "notes.txt").write_text("mine too")
    (root / "data" / "classes").mkdir()  # empty, as an undo leaves data/rejected
    copy.git("add", "notes.txt")
    assert f"{THREE} is open again" in copy.dayfold("undo", "--yes")
    assert copy.git("tag", "--list", f"day/{THREE}") == ""
    copy.git("add", "notes.txt")
    copy.dayfold("seal", "-m", "again")
    committed = copy.git("show", "--name-only", "--format=%b", "HEAD").split()
    assert committed[0] == "again"
    assert {"metrics.json", f"data/manifests/{THREE}.csv"} <= set(committed)
    assert not {"notes.txt", "data/notes.txt"} & set(committed)
    assert copy.git("status", "--porcelain") == "A  notes.txt\n?? data/notes.txt\n"
    # Behind a commit that touches nothing of the day.
    (root / "README.md").write_text("more")
    params.edit(copy.params, {"train.learning_rate": 0.002})
    copy.git("commit", "--quiet", "-m", "more", "README.md", "params.yaml")
    before = copy.params.read_text()
    assert f"{THREE} is open again" in copy.dayfold("undo", "--yes")
    assert copy.params.read_text() == before
    subjects = copy.git("log", "-2", "--format=%s").splitlines()
    assert subjects == [f"Undo the seal of {THREE}", "more"]
    assert "A  notes.txt" in copy.git("status", "--porcelain")
    assert f"{THREE}, open; parent {TWO}" in copy.dayfold("status")
    params.edit(copy.params, {"train.learning_rate": 0.001})
    copy.dayfold("seal")
    assert "nothing damaged" in copy.dayfold("check")
    # Unasked, behind a commit that changed what it has, or on another branch: not at all.
    before = copy.git("rev-parse", "HEAD", f"day/{THREE}")
    said = copy.dayfold("undo", code=1)
    assert f"{THREE} is sealed: its tag and commit are removed" in said
    assert "There is no terminal to ask on, so nothing was done" in said
    assert copy.git("rev-parse", "HEAD", f"day/{THREE}") == before
    metrics = copy.metrics.read_text()
    copy.metrics.write_text("{}")
    copy.git("commit", "--quiet", "-m", "more", "metrics.json")
    said = copy.dayfold("undo", "--seal", "--yes", code=1)
    assert f"Later commits changed what the seal of {THREE} has: metrics.json" in said
    copy.metrics.write_text(metrics)
    shell(tmp_path, "git", "init", "--quiet", "--bare", "shared.git")
    copy.git("remote", "add", "origin", str(tmp_path / "shared.git"))
    copy.git("push", "--quiet", "origin", "HEAD")
    said = copy.dayfold("undo", "--seal", "--yes", code=1)
    assert f"The seal of {THREE} is on other branches too: origin/" in said


def test_undo_keeps_the_patients_that_a_label_file_named(copy, tmp_path):
    source = write_scans(tmp_path / "new")
    files = sorted(source.rglob("*.png"))
    rows = [f"{path.relative_to(source)},4,P{number}" for number, path in enumerate(files)]
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(["path,label,group", *rows]))
    copy.dayfold("add", str(source), "--labels", str(labels), "--day", FOUR)
    groups = copy.groups(FOUR).read_text()
    assert "P2" in groups
    said = copy.dayfold("undo", "--yes")
    again = said.split("to add them again: ")[1].split(" (")[0]
    copy.sh("-c", f"{again} --day {FOUR}")
    assert copy.groups(FOUR).read_text() == groups


def test_undo_closes_an_open_day_and_keeps_its_files_and_the_edits_of_params(copy, tmp_path):
    before = copy.git("status", "--porcelain")
    for number in (1, 2):
        copy.dayfold("relabel", str(sorted(copy.images(ONE).glob("*/*"))[0]),
              "--to", "9", "--day", FOUR)  # fmt: skip
        source = str(write_scans(tmp_path / "new"))
        copy.dayfold("add", source, "--day", FOUR)
        params.edit(copy.params, {"replay.size": 7})
        if number == 1:  # what cannot be done now is finished by the same command, and no more
            copy.undone("").write_text("in the way")
            assert "Not a directory" in copy.dayfold("undo", "--yes", code=1)
            copy.undone("").unlink()
        assert f"/images/{FOUR}" in copy.dayfold("undo", "--yes")
        kept = copy.undone(FOUR if number == 1 else f"{FOUR}-2")
        assert len(list((kept / "images" / FOUR).rglob("*.png"))) == 3
        assert "relabel" in (kept / "corrections" / f"{FOUR}.csv").read_text()
        assert params.read(copy.params).replay.size == 7
        params.edit(copy.params, {"replay.size": 100})
        assert copy.git("status", "--porcelain") == before
        assert f"{THREE}, sealed" in copy.dayfold("status")


def test_a_run_goes_on_where_it_was_and_says_a_line_a_stage_and_what_is_refused(three_days):
    # The fixture gave it an archive of three days: two sealed, one of which the images were in.
    said = (three_days.root.parent / "backfill.log").read_text()
    assert f"day 1 of 3: {ONE}\n{ONE} is sealed" in said
    assert f"day 2 of 3: {TWO}\n{TWO} is sealed" in said
    assert f"day 3 of 3: {THREE}\n{THREE}: 0 images added" in said
    assert f"\nsealed as day/{THREE}; gate: no limit is set\n" in said
    last = said[said.index("day 3 of 3") :].splitlines()
    begun = [line.split() for line in last if re.match(r"\w+ +\d+\.\d s  ", line)]
    # What the weights come to is told by the next stage.
    assert [words[0] for words in begun] == [stage for stage in STAGES if stage != "weights"]
    assert begun[2][3:6] == ["4", "updates", "on"]
    for word in ("Running stage", "lock file", "git add", "autostage", "dvc push"):
        assert word not in said
    assert "  refused: 0/page.png is not an image" in said
    committed = three_days.git("show", f"day/{THREE}:data/rejected/{THREE}.csv")
    assert [line.split(",")[1] for line in committed.splitlines()] == ["path", "0/page.png"]


def test_a_run_tells_what_came_after_the_seal_and_opens_no_day_to_come(copy, digits):
    late = copy.root.parent / "late"
    shutil.copytree(digits / THREE, late / THREE)
    words = ("dayfold", "run", str(late))
    assert f"{THREE} is sealed\n" in copy.shell(*words)
    next((late / THREE).iterdir()).joinpath("new.png").write_bytes(png(1))
    said = copy.shell(*words)
    assert f"{THREE} is sealed; 1 file came later, a later day takes them: dayfold run " in said
    # An earlier folder without anything new, as of a Sunday, stops no later day.
    shutil.copytree(digits / ONE, late / SUNDAY)
    assert f"{SUNDAY} has nothing new\n" in copy.shell(*words)
    next((late / SUNDAY).iterdir()).joinpath("new.png").write_bytes(png(2))
    assert f"{SUNDAY} comes before {THREE}" in copy.shell(*words, code=1)
    shutil.rmtree(late / SUNDAY)
    # Nor does one of which every file is refused.
    (late / FOUR / "0").mkdir(parents=True)
    (late / FOUR / "0" / "page.png").write_bytes(b"<html>")
    (late / FIVE).mkdir()
    said = copy.shell(*words, code=4)
    assert "page.png is not an image" in said
    assert f"\nnothing new, so {FIVE} was not opened\n1 file refused: exit code 4" in said
    shutil.rmtree(late / FOUR)
    shutil.copytree(digits / FOUR, late / "2999-06-04")
    assert "2999-06-04 is in the future" in copy.shell(*words, code=1)
    assert f"{THREE}, sealed" in copy.dayfold("status")


def test_what_a_run_does_not_know_of_dvc_it_shows():
    shown = []
    stages = Stages(shown.append)
    for line in (
        *("Running stage 'train':", "> dayfold train", "\x1etraining 32/64 images", "slow: 3"),
        *("", "WARNING: 'x' is empty.", "Updating lock file 'dvc.lock'", "Running stage 'curve':"),
        "ACC 1.000",
    ):
        stages.handle(line)
    assert [line[19:] for line in shown] == ["slow: 3", "WARNING: 'x' is empty.", "ACC 1.000"]
    assert [line.split()[0] for line in shown] == ["train", "WARNING:", "curve"]


def test_what_dvc_cannot_lay_out_and_what_a_newer_dvc_made_are_told(copy):
    text = copy.dvc_lock.read_text()
    copy.dvc_lock.write_text(text.replace("schema: '2.0'", "schema: '3.0'"))
    assert "not as it was sealed: dvc.lock" in copy.dayfold("add", "--day", FOUR, code=1)
    with pytest.raises(ToolError) as caught:
        vcs.dvc(copy.root, "status", "dvc.yaml")
    assert caught.value.hint == "another version of DVC wrote it: pip install --upgrade dvc"
    copy.dvc_lock.write_text(text)
    shutil.rmtree(copy.root / ".dvc" / "cache")
    copy.model.unlink()
    with pytest.raises(ToolError) as caught:
        opening.checkout(copy)
    assert copy.name(copy.model) in str(caught.value)
    said = copy.dayfold("undo", "--yes", code=1)
    assert "data/model.safetensors" in said
    assert "→ dvc checkout || dvc pull" in said
