"""A training whose numbers leave the range of floats stops by name, and nothing of it is kept."""

import pytest
import torch

from builders import DAYS, make_project, take_in
from dayfold import create
from dayfold.errors import TrainingError
from dayfold.learning import device, fitting
from dayfold.learning.inputs import Job
from dayfold.learning.network import Model
from dayfold.project import params as params_file
from dayfold.stages import replay, train, weights
from pools import pool_of, start_of


@pytest.fixture
def fit(repository):
    """Train three classes for six updates, from a start and with changes of the recipe."""
    recipe = params_file.read(repository / "params.yaml").train
    small = {"image_size_px": 32, "updates": 6, "batch_size": 4}

    def run(start: Model | None = None, steps: list | None = None, **options):
        own = recipe.model_copy(update=small | options)
        machine = device.resolve(device="cpu", precision="fp32", threads=1)
        return fitting.fit(
            Job(start or start_of(3), None, own, 0, DAYS[0], machine),
            pool_of(8, 3),
            pool_of(4, 3),
            report=(steps if steps is not None else []).append,
        )

    return run


def broken(name: str, value: float) -> Model:
    start = start_of(3)
    start.state[name] = start.state[name].clone()
    start.state[name].view(-1)[0] = value
    return start


def test_a_start_that_is_not_finite_is_told_at_the_first_update(fit):
    steps = []
    with pytest.raises(TrainingError, match=r"update 1 of 6.*: the loss is no longer") as caught:
        fit(broken("fc.weight", float("nan")), steps)
    assert steps == []
    assert "origin.weights" in caught.value.mend


def test_a_rate_that_is_too_high_is_told_with_the_update_and_the_rate(fit):
    steps = []
    with pytest.raises(TrainingError) as caught:
        fit(None, steps, learning_rate=1e30)
    assert 1 <= len(steps) < 6
    found = f"update {len(steps) + 1} of 6, at the learning rate"
    assert caught.value.what.startswith(f"Training stopped at {found}")
    assert "train.learning_rate" in caught.value.mend
    assert all(torch.tensor(step.loss).isfinite() for step in steps)


def test_what_breaks_in_the_last_update_is_told_too(fit):
    with pytest.raises(TrainingError, match=r"update 1 of 1, at the learning rate 1e\+30"):
        fit(None, updates=1, learning_rate=1e30)


def test_a_statistic_that_breaks_beside_a_finite_loss_is_told_by_name(fit):
    # In training a batch is normalised by its own statistics, so no loss shows this one.
    with pytest.raises(TrainingError, match=r"update 1 of 6.*: the weight bn1\.running_mean"):
        fit(broken("bn1.running_mean", float("inf")))


def test_neither_a_model_nor_a_checkpoint_is_kept(tmp_path, monkeypatch):
    project = make_project(
        tmp_path / "project",
        origin__weights="random",
        train__image_size_px=16,
        train__updates=6,
    )
    params = params_file.read(project.params)
    create.make_origin(project, params)
    take_in(project, DAYS[0], {"cat": range(6), "dog": range(6, 12)})
    params = params_file.read(project.params)
    for stage in (weights, replay):
        stage.run(project, params)
    # More than params.yaml may say, so that it happens within a second.
    wild = params.train.model_copy(update={"learning_rate": 1e30})
    params = params.model_copy(update={"train": wild})
    kept = []
    monkeypatch.setattr(train.checkpoint, "SECONDS", 0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.checkpoint.Keeper, "remove", lambda keeper: kept.append(keeper._path))
        with pytest.raises(TrainingError):
            train.run(project, params)
    (path,) = kept
    assert path.exists()  # until it is removed, which is what happens without the patch
    with pytest.raises(TrainingError):
        train.run(project, params)
    assert list(project.checkpoints.iterdir()) == []
    for made in (project.model, project.provenance, project.plot("training")):
        assert not made.exists()
