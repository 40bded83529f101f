"""What to label next: its order, its reasons, and the way out to a labelling tool and back."""

import csv
import io
import json
import re
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dayfold
import tools
from builders import RealProject, encoded, table
from conftest import copied
from dayfold.cycle import adding
from dayfold.cycle.adding import Options
from dayfold.errors import RefusedError
from dayfold.project import params as params_file
from dayfold.serve import predicting
from dayfold.serve.model import Answer

LOOKS = [f"{0xFF << 8 * place:032x}" for place in range(16)]  # any two differ in 16 bits
DAY = "2025-06-05"
FORMATS = tools.each(["0.png"])


def answer(confidence, *, sure=False, distance=0.5, unknown=False):
    chances = {"cat": confidence, "dog": round(1 - confidence, 4)}
    return Answer("cat", confidence, sure, chances, distance, unknown)


def in_order(*answers, looks=LOOKS, groups=("",) * 16, known=(), judged=True):
    count = len(answers)
    return predicting.in_order(answers, looks[:count], groups[:count], known, judged=judged)


def test_unknown_images_come_first_by_distance_then_the_others_by_confidence():
    answers = [
        answer(0.6, sure=True),
        answer(0.45, distance=0.9),
        answer(0.99, sure=True, distance=0.6, unknown=True),
        answer(0.4),
        answer(0.3, distance=0.8, unknown=True),
        answer(0.4),
    ]
    assert in_order(*answers) == [4, 2, 3, 5, 1, 0]
    # Where none can be called unknown all go by distance, or else by confidence.
    answers = [answer(0.9, sure=True, distance=far) for far in (0.2, 0.7, 0.5)]
    assert in_order(*answers, judged=False) == [1, 2, 0]
    answers = [answer(chance, distance=None) for chance in (0.8, 0.4, 0.6)]
    assert in_order(*answers, judged=False) == [1, 2, 0]


def test_near_duplicates_of_each_other_and_of_known_images_are_left_out():
    answers = [answer(chance) for chance in (0.5, 0.4, 0.3, 0.2, 0.1)]
    near, further = (f"{(0xFF << 8) ^ bits:032x}" for bits in (0b1111, 0b11111))
    assert in_order(*answers, looks=[LOOKS[1], LOOKS[2], near, "", ""]) == [4, 3, 2, 1]
    assert in_order(*answers, looks=[LOOKS[1], further, *LOOKS[2:5]]) == [4, 3, 2, 1, 0]
    assert in_order(*answers, known=[LOOKS[3], "", near]) == [4, 2, 0]


def test_every_group_has_its_turn_before_one_has_a_second_within_its_part():
    answers = [answer(chance) for chance in (0.1, 0.2, 0.3, 0.4)]
    answers += [answer(0.2, distance=far, unknown=True) for far in (0.9, 0.8, 0.7)]
    groups = ["p", "p", "q", "", "p", "p", "q"]
    assert in_order(*answers, groups=groups) == [4, 6, 5, 0, 2, 3, 1]


def test_reasons_are_in_plain_words():
    said = predicting.reason(answer(0.61, distance=0.912, unknown=True), judged=True)
    assert said == "unlike anything known (distance 0.91), most like cat 0.61"
    assert predicting.reason(answer(0.41), judged=True) == "not sure: cat 0.41, dog 0.59"
    assert predicting.reason(answer(0.97, sure=True), judged=True) == "sure: cat 0.97"
    said = predicting.reason(answer(0.41, distance=0.4), judged=False)
    assert said == "distance 0.40, not sure: cat 0.41, dog 0.59"
    assert predicting.reason(answer(0.41, distance=None), judged=False)[:8] == "not sure"


def noise(folder, prefix, count):
    """Write images that are like no other."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(list(prefix.encode()))
    names = [f"{prefix}{number}.png" for number in range(count)]
    for name in names:
        picture = Image.fromarray(draw.integers(0, 256, (9, 9), dtype=np.uint8))
        (folder / name).write_bytes(encoded(picture.resize((36, 36), Image.Resampling.NEAREST)))
    return names


def take(project, folder, file):
    options = Options(labels=file, yes=True)
    return adding.add(project, folder, day=DAY, options=options)


@pytest.fixture(scope="module")
def trained(three_days, tmp_path_factory):
    """The three days and a fourth of images that came in every format, trained; its model."""
    top = tmp_path_factory.mktemp("queue")
    shutil.copytree(three_days.root, top / "scans", symlinks=True, copy_function=copied)
    project = RealProject(top / "scans")
    (top / "synsets.txt").write_text("cat\ndog\n")
    for name in FORMATS:
        names = noise(top / f"in-{name}", f"{name}-in-", 4)
        (top / name).write_bytes(tools.each(names)[name])
        delivery = take(project, top / f"in-{name}", top / name)
        assert (len(delivery.images), delivery.refused, delivery.changed) == (4, [], [])
        labels = {path.name: path.parent.name for path in project.images(DAY).glob("*/*")}
        assert [labels[path] for path in names] == ["cat", "dog"] * 2
        again = take(project, top / f"in-{name}", top / name)
        assert (len(again.known), again.images, again.refused, again.changed) == (4, [], [], [])
    project.dvc("repro")
    return project, dayfold.load(project.root, DAY)


def written(trained, folder, form, count=5):
    """A queue of a folder, its file and what is said."""
    project, model = trained
    file = project.root.parent / f"{folder.name}.out"
    with redirect_stdout(io.StringIO()) as said:
        predicting.write_queue(project, model, folder, count=count, file=file, form=form)
    return file, said.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_a_queue_comes_back_labelled_in_every_format(trained, name):
    project, _ = trained
    top = project.root.parent
    folder = top / f"out {name} & +é"
    names = noise(folder, f"{name}-out-", 6)
    shutil.copy(top / f"in-{name}" / f"{name}-in-0.png", folder / "known.png")
    near = f"{name}-out-near.png"
    with Image.open(folder / names[0]) as picture:
        picture.resize((72, 72), Image.Resampling.NEAREST).save(folder / near)
    (folder / "notes.txt").write_text("none")
    form = "label-studio" if name == "queue.json" else "csv"
    file, said = written(trained, folder, form)
    assert "skipped 1 file" in said
    assert "5 of 8 images" in said
    assert "1 known already, 1 near duplicate" in said
    again, _ = written(trained, folder, form)
    assert again.read_bytes() == file.read_bytes()
    nothing = take(project, folder, file)
    assert (nothing.images, nothing.refused, len(nothing.warned)) == ([], [], 2)
    if form == "csv":
        rows = table(file)
        queued = [row["path"] for row in rows]
    else:
        tasks = json.loads(file.read_text())
        queued = re.findall(r"[^/]*\.png", "\n".join(one["data"]["image"] for one in tasks))
    assert len({*queued} & {*names, near}) == 5
    labels = ["cat", "dog", "cat", "dog", "eel"]
    if name == "queue.json":
        file.write_text(json.dumps(tools.exported(tasks, labels)))
    elif name == "queue.csv":
        lines = [{**row, "label": label} for row, label in zip(rows, labels, strict=True)]
        with file.open("w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, rows[0])
            writer.writeheader()
            writer.writerows([*lines[:4], rows[4]])
    else:
        file = top / name
        file.write_bytes(tools.each(queued[:4])[name])
    delivery = take(project, folder, file)
    assert delivery.refused == []
    there = {path.name: path.parent.name for path in project.images(DAY).glob("*/*")}
    for path, label in zip(queued[:4], labels, strict=False):
        assert there[path] == label
    assert (queued[4] in there) == (name == "queue.json")


@pytest.mark.slow
def test_predictions_are_such_as_label_studio_takes(trained, tmp_path):
    project, model = trained
    folder = tmp_path / "new"
    for number, path in enumerate(sorted(project.images("2025-06-02").glob("*/*"))[:9]):
        (folder / str(number % 2)).mkdir(parents=True, exist_ok=True)
        with Image.open(path) as picture:
            picture.transpose(Image.Transpose.TRANSPOSE).save(folder / f"{number % 2}/{number}.png")
    file, said = written(trained, folder, "label-studio")
    _, _, interface = said.partition("labelling interface: ")
    assert '<Choice value="cat"/>' in interface
    tasks = json.loads(file.read_text())
    assert len(tasks) == 5
    for one in tasks:
        assert one["data"]["image"].startswith("/data/local-files/?d=new/")
        for made in one["predictions"]:
            assert 0 <= made["score"] <= 1
            assert isinstance(made["model_version"], str)
            (result,) = made["result"]
            for key, tag in (("from_name", "Choices"), ("to_name", "Image")):
                assert f'<{tag} name="{result[key]}"' in interface
            (choice,) = result["value"]["choices"]
            assert choice in model.classes


@pytest.mark.slow
def test_what_cannot_be_used_is_named_and_odd_names_come_back(trained, tmp_path):
    project, _ = trained
    names = noise(tmp_path / "odd", "odd-", 4)
    for name, new in zip(names, ("=1+1.png", "a,b.png", "two\nlines.png"), strict=False):
        (tmp_path / "odd" / name).rename(tmp_path / "odd" / new)
    (tmp_path / "odd" / "bad.png").write_text("none")
    file = tmp_path / "queue.csv"
    with pytest.raises(RefusedError, match="2 of 5 files cannot be used") as caught:
        predicting.write_queue(*trained, tmp_path / "odd", count=9, file=file, form="csv")
    assert [line.partition(" ")[0] for line in caught.value.problems] == [
        "bad.png",
        r"two\nlines.png",
    ]
    text = file.read_text()
    file.write_text(re.sub(r'^("a,b.png"|[^,]+),,', r"\1,cat,", text, flags=re.MULTILINE))
    delivery = take(project, tmp_path / "odd", file)
    assert [len(found) for found in (delivery.images, delivery.refused)] == [3, 0]


@pytest.mark.slow
def test_the_command_writes_a_queue_spread_over_patients(copy, tmp_path):
    params_file.edit(copy.params, {"data.group": "/(P[0-9])_"})
    noise(tmp_path / "new", "P1_", 4)
    noise(tmp_path / "new", "P2_", 2)
    words = ("dayfold", "predict", str(tmp_path / "new"), "--queue")
    said = copy.shell(*words, "2", "-o", "queue.csv")
    assert "2 of 6 images" in said
    assert said.splitlines()[-1].startswith("next: fill in the column label, then dayfold add ")
    rows = table(copy.root / "queue.csv")
    assert list(rows[0]) == ["path", "label", "suggested", "confidence", "reason"]
    assert sorted(row["path"][:3] for row in rows) == ["P1_", "P2_"]
    assert "takes one folder and a file" in copy.shell(*words, "2", code=1)
    wrong = (*words, "2", "-o", "q", "--format", "xml")
    assert "is not one of the formats" in copy.shell(*wrong, code=1)
    assert Path(copy.root / "q").exists() is False
