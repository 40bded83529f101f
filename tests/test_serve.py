"""Using the model: the day that is meant, the answers of evaluate, and files of every kind."""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dayfold
from builders import DAYS, table
from dayfold.demo import DAYS as DIGIT_DAYS
from dayfold.errors import CycleError, IntakeError, ModelError
from dayfold.learning import network
from dayfold.ledger import manifest, tables
from dayfold.ledger.tables import Check, Prediction
from dayfold.project import params as params_file
from dayfold.project import pins
from dayfold.project.files import for_spreadsheet
from dayfold.serve import heat, predicting
from dayfold.serve import model as models
from dayfold.serve.model import Answer

pytestmark = pytest.mark.slow

ONE, TWO, THREE = DIGIT_DAYS[:3]


@pytest.fixture(scope="module")
def model(three_days):
    return dayfold.load(three_days.root)


@pytest.fixture(scope="module")
def held(three_days):
    """The held-out images of all days, with what `evaluate` said of them."""
    said = tables.read(three_days.predictions, Prediction)
    images = manifest.history(three_days, THREE).images.select("image", "path")
    return said.join(images, on="image", how="left", maintain_order="left")


def fail(project, day):
    """Let a day's recorded gate be one that it did not pass."""
    check = Check("max_forgetting", "", 0.05, 0.5, 0.4, 0.6, 0)
    tables.write(project.gate(day), Check, [check])


def test_the_model_answers_what_evaluate_recorded(three_days, model, held):
    assert (model.day, model.classes) == (THREE, tuple("01234567"))
    answers = model.predict(three_days.root / path for path in held["path"])
    assert [answer.label for answer in answers] == held["predicted"].to_list()
    assert model.temperature == network.load(three_days.model).metadata["temperature"]
    for answer in answers:
        chances = list(answer.probabilities.values())
        assert sum(chances) == pytest.approx(1, abs=1e-5)
        assert chances == sorted(chances, reverse=True)
        assert answer.confidence == chances[0] == max(chances)
        assert answer.sure == (answer.confidence >= 0.5)


def test_a_path_a_pil_image_and_an_array_are_the_same_image(three_days, model, held):
    path = three_days.root / held["path"][0]
    with Image.open(path) as opened:
        loaded = opened.copy()
    grey = np.asarray(loaded)
    colour = np.stack([grey] * 3, axis=2)
    images = (str(path), loaded, grey, colour)
    by_path, *others = model.predict(images)
    assert others == [by_path] * 3
    # The last bits of a sum of floats depend on how many images share a batch.
    (alone,) = model.predict(path)
    assert all(model.predict([image]) == [alone] for image in images)
    assert model.predict(colour) == model.predict(grey) == [alone]
    assert len(model.predict(np.stack([colour] * 3))) == 3
    with pytest.raises(IntakeError, match="1 of 1 images"):
        model.predict(np.zeros((9, 8, 4), np.uint8))
    assert alone.label == by_path.label
    assert alone.probabilities == pytest.approx(by_path.probabilities, abs=1e-5)


def test_all_images_that_cannot_be_used_are_named_at_once(model, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    images = [tmp_path / "notes.txt", tmp_path / "nowhere.png", np.zeros((4, 4, 3)), 7]
    with pytest.raises(IntakeError, match="4 of 5 images cannot be used") as caught:
        model.predict([*images, np.zeros((4, 4), np.uint8)])
    reasons = ("is not an image", "No such file", "float64 [4, 4, 3], not uint8", "is int")
    for problem, reason in zip(caught.value.problems, reasons, strict=True):
        assert reason in problem


def test_any_day_is_had_by_name_and_without_one_the_last_that_passed_its_gate(copy):
    first = dayfold.load(copy.root, ONE)
    assert (first.day, first.classes) == (ONE, tuple("012345"))
    with pytest.raises(CycleError, match=f"no model of {DAYS[28]}"):
        dayfold.load(copy.root, DAYS[28])
    fail(copy, THREE)
    assert dayfold.load(copy.root / "data").day == TWO
    said = models.describe_choice(copy, TWO, None)
    assert said.startswith(f"model of {TWO}, the last day that did not fail its gate (")
    assert said.endswith(f"); {THREE} failed")
    fail(copy, TWO)
    fail(copy, ONE)
    with pytest.raises(CycleError, match="None of the 3 sealed days passed"):
        dayfold.load(copy.root)
    assert dayfold.load(copy.root, THREE).day == THREE
    # Below the threshold the answer is not sure.
    params_file.edit(copy.params, {"predict.threshold": 1.0})
    (answer,) = dayfold.load(copy.root, THREE).predict(next(copy.images(ONE).rglob("*.png")))
    assert not answer.sure


def test_a_damaged_copy_in_the_cache_is_not_used(copy):
    name = pins.sealed_outputs(copy.root, TWO)["data/model.safetensors"]
    pinned = next((copy.root / ".dvc" / "cache").rglob(name[2:]))
    data = bytearray(pinned.read_bytes())
    data[-1] ^= 1
    pinned.unlink()
    pinned.write_bytes(data)
    pinned.chmod(0o444)
    with pytest.raises(ModelError, match="not the one that was sealed") as caught:
        dayfold.load(copy.root, TWO)
    assert caught.value.hint.endswith(f"rm -f {pinned}")
    pinned.unlink()
    with pytest.raises(ModelError, match="neither in DVC's cache here nor"):
        dayfold.load(copy.root, TWO)


def test_predict_answers_all_images_lists_bad_ones_and_passes_over_the_rest(three_days, tmp_path):
    folder = tmp_path / "new"
    shutil.copytree(three_days.images(ONE) / "3", folder / "3")
    first, *others = sorted(folder.rglob("*.png"))
    first.rename(folder / "an image by its bytes")
    for name in ("notes.txt", "labels.csv", "3/read me", "3/empty"):
        (folder / name).write_text("hello" * ("empty" not in name))
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.png").write_text("hello")
    os.mkfifo(folder / "pipe.png")  # nobody writes into it
    images, file = len(others) + 1, tmp_path / "said.csv"
    words = ("dayfold", "predict", str(folder), "--csv", str(file), "--top", "2", "--day", ONE)
    said = three_days.shell(*words, code=4)
    (line,) = [line for line in said.splitlines() if "skipped" in line]
    assert line.startswith("skipped 5 files, no images: ")
    assert line.count(", ") == 5
    assert re.search(rf"{images} images in [\d.]+ s, \d+ img/s", said)
    assert f"1 of {images + 1} files cannot be predicted" in said
    assert "notes.png is not an image" in said
    rows = table(file)
    (bad,) = [row for row in rows if row["problem"]]
    assert bad["predicted"] == ""
    assert bad["problem"].startswith(f"{folder / 'notes.png'} is not an image")
    rows.remove(bad)
    assert len(rows) == images
    for row in rows:
        assert 0 < float(row["confidence_2"]) <= float(row["confidence"]) <= 1
        assert row["sure"] in ("0", "1")


def test_where_no_image_is_given_predict_says_so(three_days, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    os.mkfifo(tmp_path / "pipe")
    for names, code, said in (
        (["notes.txt"], 4, ["notes.txt is not an image"]),  # a file that was named
        (["pipe"], 4, ["pipe is not a file"]),
        (["."], 1, ["There are no images to predict"]),
        (["nix", "nox"], 1, ["nix does not exist", "nox does not exist"]),
    ):
        found = three_days.dayfold("predict", *(str(tmp_path / name) for name in names), code=code)
        assert all(line in found for line in said)


def test_a_line_names_the_class_or_between_which_the_model_cannot_decide():
    chances = {"cat": 0.75, "dog": 0.2, "eel": 0.05}
    sure = Answer("cat", 0.75, True, chances, 0.125, False)
    assert predicting.line(sure, 1, 4) == "cat   0.750"
    assert predicting.line(sure, 2, 4) == "cat   0.750  then dog 0.200"
    unsure = replace(sure, sure=False)
    assert predicting.line(unsure, 1, 8) == "not sure  cat 0.750, dog 0.200"
    far = "unknown   distance 0.125, most like cat 0.750"
    assert predicting.line(replace(sure, unknown=True), 1, 8) == far
    # No cell is taken for a formula.
    cells = {text: for_spreadsheet(text) for text in ("=1+1", "+a", "-a", "@a", "a=b", "")}
    assert list(cells.values()) == ["'=1+1", "'+a", "'-a", "'@a", "a=b", ""]


def test_the_example_of_the_docs_runs(three_days, repository, capsys, monkeypatch):
    text = (repository / "docs" / "using.md").read_text(encoding="utf-8")
    code = text.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(three_days.root.parent)
    shutil.copy(next(three_days.images(ONE).rglob("*.png")), Path("scan.png"))
    program = compile(code, "docs/using.md", "exec")
    exec(program, {})  # noqa: S102
    assert THREE in capsys.readouterr().out


def test_a_heat_map_shows_what_the_answer_rests_on(three_days):
    loaded = network.load(three_days.model)
    paths = sorted(three_days.images(ONE).rglob("*.png"))[:3]
    drawn = heat.heat_pictures(loaded, paths)
    assert [one.size for one in drawn] == [(16, 16)] * 3
    black = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    black[:, :, 8:24, 8:24] = 255  # all that there is to see is in one quarter
    found = heat.heat_maps(loaded, black)[0]
    assert found.shape == (64, 64)
    assert 0 <= found.min() < found.max() <= 1
    quarters = [found[y : y + 32, x : x + 32].sum().item() for y in (0, 32) for x in (0, 32)]
    assert max(quarters) == quarters[0]
