"""A training that was stopped goes on to the bits of one that was not, or begins anew."""

import numpy as np
import pytest
import torch

from builders import image
from dayfold.learning import checkpoint, device, fitting, network, pixels
from dayfold.learning.checkpoint import Keeper, Saved
from dayfold.learning.inputs import Job, Pool
from dayfold.ledger.tables import TrainingStep
from dayfold.project import params as params_file

DAY = "2025-06-02"
UPDATES = 20


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
    changes = pixels.changes
    monkeypatch.setattr(
        pixels,
        "changes",
        lambda names, *scope, **place: (
            log.append((*names, scope, place)) or changes(names, *scope, **place)
        ),
    )

    def run(saved=None, keep=None, **options):
        steps = saved.steps if saved else []
        log.clear()
        state, drawn, _ = fitting.fit(
            Job(start, teacher, recipe.model_copy(update=options), 0, DAY, machine),
            pool,
            pool,
            report=steps.append,
            saved=saved,
            keep=lambda update, state: keep and keep(update, steps, state),
        )
        return state, steps, drawn, list(log)

    run.log = log
    return run


@pytest.fixture(autouse=True)
def every_update(monkeypatch):
    """Keep every update: as much as a process writes that was killed right after it."""
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)


def keeper(folder, inputs=None):
    return Keeper(folder, inputs or {"day": DAY})


def test_stopped_after_every_single_update_it_is_the_training_that_was_not(train, tmp_path):
    """At every boundary of an epoch and at 15 instants within one, one after the other."""
    state, steps, drawn, batches = train()
    ended, pieces = None, []
    for update in range(1, UPDATES):
        kept = keeper(tmp_path)
        saved = kept.going_on(kept.found())
        assert (saved.update if saved else 0) == update - 1

        def keep(*words, kept=kept):
            kept.keep(*words)
            raise Stopped

        with pytest.raises(Stopped):
            train(saved, keep)
        pieces += train.log
    kept = keeper(tmp_path)
    ended = train(kept.going_on(kept.found()))
    assert pieces + ended[3] == batches
    assert ended[1] == steps
    assert [step.step for step in steps] == list(range(1, UPDATES + 1))
    assert ended[2].tolist() == drawn.tolist()
    assert state.keys() == ended[0].keys()
    assert all(torch.equal(state[name], ended[0][name]) for name in state)


def test_a_checkpoint_is_written_by_the_clock(train, tmp_path, monkeypatch):
    written = []

    def watched(kept):
        def keep(update, steps, state):
            before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*")}
            kept.keep(update, steps, state)
            if before != {path: path.stat().st_mtime_ns for path in tmp_path.glob("*")}:
                written.append(update)

        return keep

    with monkeypatch.context() as later:
        later.setattr(checkpoint, "SECONDS", 1e9)
        train(keep=watched(keeper(tmp_path)), updates=6)
    assert written == []
    often = keeper(tmp_path)
    train(keep=watched(often), updates=6)
    assert written == [1, 2, 3, 4, 5]  # the last update needs none
    often.remove()
    assert list(tmp_path.iterdir()) == []


STEPS = [TrainingStep(1, 1, 0.1 + 0.2, 1e-5), TrainingStep(2, 1, 2 / 3, 0.5)]
SAVED = Saved(2, STEPS, {"net.a": torch.tensor([0.1, float("nan")]), "b": torch.tensor(3)}, 1.5)


def test_what_is_read_is_what_was_kept():
    read = checkpoint.read(checkpoint.made(SAVED, "me"), "me")
    assert (read.update, read.steps, read.seconds) == (2, STEPS, 1.5)
    assert read.state.keys() == SAVED.state.keys()
    for name, tensor in SAVED.state.items():
        assert read.state[name].numpy().tobytes() == tensor.numpy().tobytes()
        assert read.state[name].dtype == tensor.dtype


def test_no_changed_byte_is_trusted():
    whole = checkpoint.made(SAVED, "me")
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        with pytest.raises(ValueError, match="is damaged"):
            checkpoint.read(bytes(damaged), "me")
    for length in (0, 1, 64, 65, len(whole) - 1):
        with pytest.raises(ValueError, match=r"is (damaged|no checkpoint)"):
            checkpoint.read(whole[:length], "me")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is damaged"),
        (b"not one\n", "is damaged"),
        (b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n", "is no checkpoint"),
        (checkpoint.made(SAVED, "another"), "is of another training"),
        (checkpoint.made(SAVED, "me")[:-2], "is damaged"),
    ],
)
def test_a_damaged_or_foreign_checkpoint_is_ignored_with_a_word(tmp_path, capsys, data, words):
    kept = keeper(tmp_path)
    kept._path.write_bytes(data)
    assert kept.found() == b""
    said = capsys.readouterr().err
    assert words in said
    assert "training begins anew" in said
    assert list(tmp_path.iterdir()) == []


def test_another_input_has_another_checkpoint(tmp_path):
    one, two = keeper(tmp_path, {"seed": 0}), keeper(tmp_path, {"seed": 1})
    one.keep(UPDATES, STEPS, lambda: {"net.a": torch.ones(1)})
    assert two.found() == b""
    assert one.going_on(one.found()).update == UPDATES


def test_of_other_inputs_the_newest_two_are_kept_and_no_half_written_file(tmp_path):
    for number in range(5):
        other = keeper(tmp_path, {"seed": number})
        other.keep(UPDATES, STEPS, dict)
    (tmp_path / ".half.dayfold-part").write_bytes(b"half")
    newest = sorted(tmp_path.glob("*.checkpoint"), key=lambda path: path.stat().st_mtime_ns)[-2:]
    mine = keeper(tmp_path, {"seed": 9})
    assert mine.found() == b""
    assert sorted(tmp_path.iterdir()) == sorted(newest)


def test_a_checkpoint_that_cannot_be_written_stops_no_training(tmp_path, capsys):
    (tmp_path / "checkpoints").write_bytes(b"a file where the folder should be")
    keeper(tmp_path / "checkpoints").keep(UPDATES, STEPS, dict)
    assert "no checkpoint: " in capsys.readouterr().err
