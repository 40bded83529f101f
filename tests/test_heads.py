"""The head has a row for every class that has images, and one thing is meant by a new class."""

import json

import pytest
import torch

from builders import (
    DAYS,
    TINY,
    make_project,
    make_trainable,
    open_day,
    place,
    run_stages,
    take_in,
)
from dayfold import create
from dayfold.figures import gate, log
from dayfold.learning import network
from dayfold.ledger import manifest
from dayfold.project import params as params_file
from dayfold.project.layout import Project
from dayfold.stages import curve, evaluate, replay, snapshot, train, weights

HARDLY = {"train__learning_rate": 1e-7, "replay__size": 0, "gate__min_new_f1": 0.5}
CAT, DOG, EEL = range(20), range(20, 40), range(40, 60)


def inherit(project: Project) -> None:
    project.parent_model.write_bytes(project.model.read_bytes())
    project.parent_predictions.write_bytes(project.predictions.read_bytes())


@pytest.fixture
def begun(tmp_path) -> Project:
    """A day of cats and dogs, trained."""
    project = make_trainable(tmp_path / "project", **HARDLY)
    take_in(project, DAYS[0], {"cat": CAT, "dog": DOG})
    run_stages(project, weights, replay, train, evaluate)
    inherit(project)
    return project


def rename(project: Project, day: str, old: str, new: str) -> None:
    """Give all images of a class another name on a day that brings eels only."""
    known = manifest.history(project, params_file.read(project.params).day)
    open_day(project, day)
    images = known.images.filter(label=old)["image"]
    with project.corrections(day).open("a") as file:
        file.writelines(f"relabel,{image},{new},\n" for image in images)
    place(project.images(day), "eel", EEL if day == DAYS[1] else range(60, 70))
    run_stages(project, snapshot, weights, replay, train, evaluate)


def row(model: network.Model, name: str) -> torch.Tensor:
    return model.state["fc.weight"][model.classes.index(name)]


def test_a_renamed_class_keeps_its_row_though_no_image_of_it_is_in_the_pool(begun):
    before = network.load(begun.model)
    rename(begun, DAYS[1], "cat", "lynx")
    after = network.load(begun.model)
    assert after.live == ("dog", "eel", "lynx")
    assert after.retired == ("cat",)
    assert torch.allclose(row(after, "lynx"), row(before, "cat"), atol=1e-5)
    inherit(begun)
    # And under its old name again: that row goes on where the other one was.
    rename(begun, DAYS[2], "lynx", "cat")
    again = network.load(begun.model)
    assert again.live == ("cat", "dog", "eel")
    assert torch.allclose(row(again, "cat"), row(after, "lynx"), atol=1e-5)


def test_what_is_new_is_what_the_ledger_saw_first_whatever_the_origin_knew(tmp_path):
    project = make_project(tmp_path / "project", **TINY, **HARDLY)
    team = network.grown(network.random_origin(1), ["cat", "dog"], seed=1)
    torch.save(team.state, tmp_path / "team.pt")
    origin = {"origin.weights": str(tmp_path / "team.pt"), "origin.classes": ["cat", "dog"]}
    params_file.edit(project.params, origin)
    create.make_origin(project, params_file.read(project.params))
    take_in(project, DAYS[0], {"cat": CAT, "eel": EEL})
    run_stages(project, weights, replay, train, evaluate, curve)
    figures = json.loads(project.metrics.read_bytes())
    (line,) = log.lines(project, params_file.read(project.params))
    made = json.loads(project.provenance.read_bytes())
    assert line.new == tuple(made["new_classes"]) == ("cat", "eel")
    for name in ("f1", "confidence"):
        assert figures["new"][name] == line.figures["new"][name] is not None
    assert figures["new"]["share"] == 1.0
    checked = [check.label for check in gate.read(project, DAYS[0]) if check.limit == "min_new_f1"]
    assert checked == ["cat", "eel"]
    # The origin's row of the class that is new here was kept, not drawn anew.
    assert torch.allclose(row(network.load(project.model), "cat"), row(team, "cat"), atol=1e-5)
