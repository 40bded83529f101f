"""A training that was stopped goes on to the bits of one that was not, or begins anew."""

import numpy as np
import pytest
import torch

from builders import image
from dayfold import draws
from dayfold.learning import checkpoint, device, fitting, network
from dayfold.learning.checkpoint import CheckpointFile, Saved
from dayfold.learning.inputs import Job, Pool
from dayfold.learning.parallel import ALONE
from dayfold.ledger.tables import TrainingStep
from dayfold.project import params as params_file

DAY = "2025-06-02"
UPDATES = 7  # epochs of 1, 1, 2, 1 and 2


class Stopped(Exception):
    """What ends a training in the middle here."""


@pytest.fixture(scope="module")
def recipe(repository):
    """With all that has a state between updates, and all that could be forgotten."""
    whole = params_file.read(repository / "params.yaml").train
    budget = {"image_size_px": 16, "updates": UPDATES, "batch_size": 4}
    return whole.model_copy(update={**budget, "ema_length": 0.5, "distill": 0.5})


@pytest.fixture
def train(recipe, monkeypatch):
    """Train, or go on, and return (state, steps, drawn, the log of the batches that were drawn)."""
    machine = device.resolve(device="cpu", precision="fp32", threads=1)
    values = np.random.default_rng(0).integers(0, 256, (12, 3, 16, 16), dtype=np.uint8)
    images = [image(number) for number in range(12)]
    pool = Pool(torch.from_numpy(values), torch.arange(12) % 3, images, [3.0] * 4 + [1.0] * 8)
    start = network.grown(network.random_origin(0), ["a", "b", "c"], seed=0)
    teacher = network.grown(network.random_origin(1), ["a", "b"], seed=0)
    log = []
    fields = draws.uniform_fields
    monkeypatch.setattr(
        draws,
        "uniform_fields",
        lambda *scope, ids: log.append((scope, ids)) or fields(*scope, ids=ids),
    )

    def run(saved=None, keep=None, **options):
        steps = [*saved.steps] if saved else []
        log.clear()
        state, drawn, *_ = fitting.fit(
            Job(start, teacher, recipe.model_copy(update=options), 0, DAY, machine),
            pool,
            pool,
            report=steps.append,
            saved=saved,
            keep=lambda state: keep and keep(steps, state),
        )
        return state, steps, drawn, list(log)

    run.log = log
    return run


@pytest.fixture(autouse=True)
def every_update(monkeypatch):
    """Keep every update: as much as a process writes that was killed right after it."""
    monkeypatch.setenv(checkpoint.INTERVAL, "0")


def keeper(folder, **inputs):
    return CheckpointFile(folder, {"day": DAY, **inputs})


def test_stopped_after_every_single_update_it_is_the_training_that_was_not(train, tmp_path):
    state, steps, drawn, batches = train()
    pieces = []
    for update in range(1, UPDATES):
        kept = keeper(tmp_path)
        saved = kept.load(ALONE)
        assert (len(saved.steps) if saved else 0) == update - 1

        def keep(*words, kept=kept):
            kept.save_if_due(*words)
            raise Stopped

        with pytest.raises(Stopped):
            train(saved, keep)
        pieces += train.log
    ended = train(keeper(tmp_path).load(ALONE))
    assert pieces + ended[3] == batches
    assert ended[1] == steps
    assert [step.step for step in steps] == list(range(1, UPDATES + 1))
    assert ended[2].tolist() == drawn.tolist()
    assert state.keys() == ended[0].keys()
    assert all(torch.equal(state[name], ended[0][name]) for name in state)


def test_a_checkpoint_is_written_by_the_clock_and_not_after_the_last_update(
    train, tmp_path, monkeypatch
):
    with monkeypatch.context() as seldom:
        seldom.delenv(checkpoint.INTERVAL)
        train(keep=keeper(tmp_path).save_if_due, updates=3)
    assert list(tmp_path.iterdir()) == []
    often = keeper(tmp_path)
    train(keep=often.save_if_due, updates=3)
    assert len(often.load(ALONE).steps) == 2
    often.remove()
    assert list(tmp_path.iterdir()) == []


STEPS = [TrainingStep(1, 1, 0.1 + 0.2, 1e-5), TrainingStep(2, 1, 2 / 3, 0.5)]
SAVED = Saved(STEPS, {"net.a": torch.tensor([0.1, float("nan")]), "b": torch.tensor(3)}, 0.1)
WHOLE = checkpoint.to_bytes(SAVED)


def test_what_is_read_is_what_was_kept_and_no_changed_byte_is_trusted():
    read = checkpoint.from_bytes(WHOLE)
    assert (read.steps, read.seconds) == (STEPS, 0.1)
    assert read.state.keys() == SAVED.state.keys()
    for name, tensor in SAVED.state.items():
        assert read.state[name].numpy().tobytes() == tensor.numpy().tobytes()
        assert read.state[name].dtype == tensor.dtype
    flipped = [bytearray(WHOLE) for _ in WHOLE]
    for place, damaged in enumerate(flipped):
        damaged[place] ^= 1
    for damaged in (*flipped, *(WHOLE[:length] for length in (0, 1, 64, 65, len(WHOLE) - 1))):
        with pytest.raises(ValueError, match="is damaged"):
            checkpoint.from_bytes(bytes(damaged))


def test_a_checkpoint_that_is_damaged_or_cannot_be_written_stops_no_training(tmp_path, capsys):
    kept = keeper(tmp_path)
    for data in (b"", b"not one\n", WHOLE[:-2]):
        kept._path.write_bytes(data)
        assert kept.load(ALONE) is None
        assert "is damaged; training starts again" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []
    (tmp_path / "checkpoints").write_bytes(b"a file where the folder should be")
    keeper(tmp_path / "checkpoints").save_if_due(STEPS, dict)
    assert "no checkpoint: " in capsys.readouterr().err


def test_other_inputs_have_other_checkpoints_of_which_the_newest_two_are_kept(tmp_path):
    for seed in range(5):
        keeper(tmp_path, seed=seed).save_if_due(STEPS, lambda: {"net.a": torch.ones(1)})
    (tmp_path / ".half.dayfold-part").write_bytes(b"half")
    newest = sorted(tmp_path.glob("*.checkpoint"), key=lambda path: path.stat().st_mtime_ns)[-2:]
    assert keeper(tmp_path, seed=9).load(ALONE) is None
    assert sorted(tmp_path.iterdir()) == sorted(newest)
    assert keeper(tmp_path, seed=4).load(ALONE).steps == STEPS
