"""A project of another network than resnet18: a day from init to export, and what is for good."""

import json
import re

import numpy as np
import pytest
import torch

import dayfold
from builders import DAYS, NO_GATE, RealProject, place
from dayfold.learning import network
from dayfold.project import params as params_file
from dayfold.serve import exporting, heat

pytestmark = pytest.mark.slow

DAY = DAYS[0]
SMALL = {"train.updates": 2, "train.batch_size": 8, "train.threads": 1, "train.precision": "fp32"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, shell) -> RealProject:
    """A project of resnet50, with a sealed day of forty images of 16 px."""
    folder = tmp_path_factory.mktemp("networks")
    options = ("--weights", "random", "--network", "resnet50", "--image-size", "16")
    shell(folder, "dayfold", "init", "scans", *options)
    project = RealProject(folder / "scans")
    params_file.edit(project.params, {**SMALL, **NO_GATE})
    for label, first in (("cat", 0), ("dog", 20)):
        place(folder / "in", label, range(first, first + 20))
    said = project.dayfold("run", "../in", "--day", DAY, "--verbose")
    assert "origin, resnet50 with 2 classes" in said
    return project


def test_a_day_of_resnet50_is_made_again_to_the_bit_from_its_random_origin(trained):
    model = network.load(trained.model)
    assert params_file.read(trained.params).origin.network == model.network == "resnet50"
    assert model.state["fc.weight"].shape == model.novelty.means.shape == (2, 2048)
    said = trained.dayfold("reproduce", DAY, "--from-scratch")
    assert f"fingerprint of {DAY}, as recorded" in said
    assert "1 of 1 days identical, to the bit" in said


def test_it_predicts_and_shows_where_it_looks(trained):
    paths = sorted(trained.images(DAY).rglob("*.png"))[:3]
    for answer in dayfold.load(trained.root).predict(paths):
        assert answer.probabilities.keys() == {"cat", "dog"}
        assert 0 <= answer.distance <= 1
    made = heat.heat_maps(network.load(trained.model), torch.zeros(2, 3, 16, 16, dtype=torch.uint8))
    assert made.shape == (2, 16, 16)


@pytest.mark.parametrize("name", ["m.onnx", "m.safetensors"])
def test_every_export_is_the_model_and_its_papers_name_the_network(trained, tmp_path, name, capsys):
    file = tmp_path / name
    form = exporting.form_of(file, None)
    exporting.export(trained, file, day=DAY, form=form)
    said = capsys.readouterr().out
    assert float(re.search(r"from the model is (\S+) ", said)[1]) <= 1e-5
    card = (tmp_path / "m.MODEL_CARD.md").read_text(encoding="utf-8")
    assert "A resnet50 that tells 2 classes apart" in card
    readme = (tmp_path / "m.README.md").read_text(encoding="utf-8")
    assert ("from torchvision.models import resnet50" in readme) == (form == "safetensors")
    if form == "onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(file)
        facts = json.loads(session.get_modelmeta().custom_metadata_map["dayfold"])
        assert facts["network"] == "resnet50"
        chances, far = session.run(None, {"images": np.zeros((1, 16, 16, 3), np.uint8)})
        assert (chances.shape, far.shape) == ((1, 2), (1,))


def test_another_network_needs_another_project(trained):
    before = trained.params.read_bytes()
    params_file.edit(trained.params, {"origin.network": "resnet34"})
    said = "origin.network is resnet34, but this project began with resnet50 and keeps it."
    told = trained.dayfold("train", code=1)
    assert said in told
    assert "dayfold init DIR --network resnet34" in told
    trained.params.write_bytes(before)
