"""Exports: the same function in every format, checked before it is written, with its papers."""

import io
import json
import re
import shutil
from contextlib import redirect_stdout

import numpy as np
import pytest
from PIL import Image

import dayfold
from dayfold.demo import DAYS
from dayfold.errors import CycleError, ModelError
from dayfold.figures.card import _plain
from dayfold.serve import exporting

pytestmark = pytest.mark.slow

ONE, TWO, THREE = DAYS[:3]
FORMATS = {"onnx": "m.onnx", "safetensors": "m.safetensors"}


@pytest.fixture(scope="module")
def exported(three_days, tmp_path_factory):
    """The third day's model in every format, and what was said of each."""
    folder, said = tmp_path_factory.mktemp("exports"), {}
    for form, name in FORMATS.items():
        (folder / form).mkdir()
        with redirect_stdout(io.StringIO()) as lines:
            written = exporting.export(three_days, folder / form / name, day=THREE, form=form)
        assert all(path.is_file() for path in written)
        said[form] = lines.getvalue().splitlines()
    return folder, said


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_is_checked_on_all_held_out_images_that_are_here(exported, three_days, form):
    day, line, *_ = exported[1][form]
    assert day == f"model of {THREE}"
    found = re.match(r"Checked on (\d+) of (\d+) held-out images: .* model is (\S+) \(", line)
    assert found
    assert found[1] == found[2] != "0"
    assert float(found[3]) <= 1e-5
    if form == "safetensors":  # the very file of the day
        assert (exported[0] / form / "m.safetensors").read_bytes() == three_days.model.read_bytes()


@pytest.mark.parametrize("form", FORMATS)
def test_the_program_of_the_readme_gives_dayfold_s_own_answer(
    exported, form, three_days, monkeypatch, capsys
):
    folder = exported[0] / form
    text = (folder / "m.README.md").read_text(encoding="utf-8")
    code = text.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(folder)
    with Image.open(next(three_days.images(ONE).rglob("*.png"))) as image:
        # Neither square nor of the model's size.
        scan = image.convert("L").resize((20, 13))
    scan.save("scan.png")
    exec(compile(code, "README", "exec"), {})  # noqa: S102
    label, confidence = capsys.readouterr().out.split()
    (answer,) = dayfold.load(three_days.root, THREE).predict(folder / "scan.png")
    # By one update the classes are nearly level, and dayfold may compute in bf16.
    assert answer.probabilities[label] == pytest.approx(answer.confidence, abs=0.02)
    assert float(confidence) == pytest.approx(answer.probabilities[label], abs=0.02)


def test_onnx_names_its_classes_and_takes_any_number_of_images(exported):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(exported[0] / "onnx" / "m.onnx")
    properties = session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["classes"]) == list("01234567")
    assert json.loads(properties["dayfold"])["day"] == THREE
    for count in (1, 5):
        images = np.zeros((count, 16, 16, 3), np.uint8)
        chances, far = session.run(None, {"images": images})
        assert far.shape == (count,)
        assert chances.shape == (count, 8)
        assert chances.sum(1) == pytest.approx(np.ones(count), abs=1e-5)


def test_what_is_not_the_model_is_not_written_and_without_any_image_it_is_checked_on_noise(
    copy, tmp_path, monkeypatch, capsys
):
    file = tmp_path / "m.safetensors"
    with monkeypatch.context() as patched:
        patched.setattr(exporting, "TOLERANCE", -1.0)
        with pytest.raises(ModelError, match="nothing was written"):
            exporting.export(copy, file, day=TWO, form="safetensors")
    assert not list(tmp_path.glob("m.*"))
    shutil.rmtree(copy.data / "images")
    capsys.readouterr()
    exporting.export(copy, file, day=TWO, form="safetensors")
    checked = capsys.readouterr().out.splitlines()[1]
    assert checked.startswith("Checked on 8 images of noise (none of the ")


def test_the_card_holds_what_is_recorded_of_the_day(three_days, tmp_path):
    card = tmp_path / "MODEL_CARD.md"
    said = three_days.dayfold("export", str(card), "--day", TWO)
    assert said == f"model of {TWO}\nwritten: {card}\n"
    assert _plain("a|b <script> *x*") == r"a\|b \<script\> \*x\*"  # names are no Markdown
    text = card.read_text(encoding="utf-8")
    assert text.startswith(f"# Model card: scans, {TWO}\n")
    assert "7 classes" in text
    assert "2 days of images" in text
    figures = json.loads(three_days.git("show", f"day/{TWO}:data/metrics/day.json"))
    low, high = figures["interval"]["accuracy"].values()
    row = f"| {figures['accuracy']:.3f} | {low:.3f} to {high:.3f} |"
    assert row in text
    made = json.loads(three_days.git("show", f"day/{TWO}:data/provenance.json"))
    for pin in made["sha256"].values():
        assert pin in text
    assert len([line for line in text.splitlines() if re.match(r"\| \d \|", line)]) == 7


def test_a_format_is_named_or_is_the_file_s_ending(tmp_path):
    assert exporting.form_of(tmp_path / "a.onnx", None) == "onnx"
    assert exporting.form_of(tmp_path / "a.bin", "safetensors") == "safetensors"
    for file, form in (("a.bin", None), ("a.pt", None), ("a.onnx", "tflite")):
        with pytest.raises(CycleError, match="is not a model format"):
            exporting.form_of(tmp_path / file, form)
