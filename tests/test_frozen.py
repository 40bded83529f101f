"""Frozen depth: what is frozen stays to the bit, and what is kept of it changes no bit either."""

import shutil

import numpy as np
import pytest
import torch

from dayfold.learning import activations as kept
from dayfold.learning import device, fitting, network, pixels
from dayfold.learning.activations import DEPTHS, Activations
from dayfold.learning.fitting import on_parent
from dayfold.learning.inputs import Job, Pool
from dayfold.project import params as params_file
from dayfold.project.kept import prune
from pools import pool_of, start_of

DAY = "2025-06-02"
FINGERPRINT = {"cpu": "one"}


@pytest.fixture(scope="module")
def machine():
    return device.resolve(device="cpu", precision="fp32", threads=1)


@pytest.fixture(scope="module")
def recipe(repository):
    whole = params_file.read(repository / "params.yaml").train
    budget = {"image_size_px": 32, "updates": 6, "batch_size": 8}
    return whole.model_copy(update={**budget, "frozen_through": "layer2"})


@pytest.fixture(autouse=True)
def few_variants(monkeypatch):
    monkeypatch.setattr(kept, "VARIANTS", 3)


@pytest.fixture
def activations(recipe, machine, tmp_path):
    def make(*pools, start=None, fingerprint=FINGERPRINT, day=DAY, **options):
        own = recipe.model_copy(update=options)
        job = Job(start or start_of(3), None, own, 0, day, machine)
        made = Activations(job, tmp_path, fingerprint)
        return made, made.make(*pools)

    return make


@pytest.fixture
def train(recipe, machine, activations):
    def run(pool, **options):
        own = recipe.model_copy(update=options)
        validation, steps = pool_of(4, 3), []
        given, _ = activations(pool, validation, **options)
        state, drawn, _ = fitting.fit(
            Job(start_of(3), start_of(2), own, 0, DAY, machine),
            pool,
            validation,
            report=steps.append,
            inputs=given,
        )
        return state, steps, drawn

    return run


LAYERS = [name for name, _ in network.build(start_of(1), 32).named_children()]


def is_frozen(name, depth):
    return LAYERS.index(name.partition(".")[0]) < DEPTHS[depth]


@pytest.mark.parametrize("depth", DEPTHS)
def test_what_is_frozen_stays_to_the_bit_and_the_rest_learns(train, depth):
    before = start_of(3).state
    options = {"ema_length": 0.5, "distill": 0.5}
    after, steps, _ = train(pool_of(10, 3), frozen_through=depth, **options)
    assert all(np.isfinite(step.loss) for step in steps)
    same = {name: torch.equal(before[name], after[name]) for name in before}
    assert any(is_frozen(name, depth) for name in before)
    assert all(same[name] for name in before if is_frozen(name, depth))
    assert not any(same[name] for name in before if not is_frozen(name, depth))


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_two_parts_are_the_network(recipe, machine, activations, depth):
    pool = pool_of(5, 3)
    given, _ = activations(pool, frozen_through=depth)
    net = network.build(start_of(3), 32).eval()
    with torch.inference_mode():
        whole = net(pixels.normalised(pool.pixels))
        parts = given.learner(net).eval()(given.plain(pool, np.arange(5)))
    # Kept as float16, which has 11 bits.
    assert torch.allclose(parts, whole, atol=2e-2 * float(whole.abs().max()))


def test_a_training_is_the_same_whether_activations_are_kept_or_made(train, tmp_path):
    pool = pool_of(10, 3)
    one, steps, drawn = train(pool)
    two, again, _ = train(pool)
    shutil.rmtree(next(tmp_path.iterdir()))
    # As on a day that replays other images beside these.
    few = Pool(pool.pixels[:4], pool.targets[:4], pool.images[:4], pool.weights[:4])
    train(few)
    three, anew, drawn_anew = train(pool)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(torch.equal(one[name], three[name]) for name in one)
    assert steps == again == anew
    assert drawn.tolist() == drawn_anew.tolist()


def test_the_plan_is_that_of_a_training_of_the_whole_network(recipe, machine, train):
    pool = pool_of(10, 3)
    _, drawn, _ = fitting.fit(
        Job(start_of(3), None, recipe, 0, DAY, machine),
        pool,
        pool_of(4, 3),
        report=lambda _: None,
    )
    assert train(pool)[2].tolist() == drawn.tolist()


def test_an_image_s_activations_are_made_once(activations):
    pool = pool_of(6, 3)
    assert activations(pool)[1] == 6
    assert activations(pool)[1] == 0
    # On another day too, from a model that learnt beyond the frozen layers.
    learnt = start_of(3)
    learnt.state["fc.weight"][:] = 1
    learnt.state["layer3.0.conv1.weight"][:] = 1
    assert activations(pool, start=learnt, day="2025-06-03")[1] == 0


@pytest.mark.parametrize(
    "other",
    [
        {"start": start_of(3, seed=1)},
        {"fingerprint": {"cpu": "two"}},
        {"frozen_through": "layer1"},
    ],
    ids=["frozen weights", "fingerprint", "depth"],
)
def test_what_activations_depend_on_names_them(activations, other):
    pool = pool_of(2, 3)
    activations(pool)
    assert activations(pool, **other)[1] == 2


def test_kept_activations_that_are_damaged_are_made_again(activations, tmp_path):
    pool = pool_of(3, 3)
    given, _ = activations(pool)
    before = given.plain(pool, np.arange(3))
    one, two, _ = sorted(tmp_path.glob("*/*"))
    data = bytearray(one.read_bytes())
    data[100] ^= 1
    one.write_bytes(data)
    two.write_bytes(two.read_bytes()[:-2])
    given, made = activations(pool)
    assert made == 2
    assert torch.equal(given.plain(pool, np.arange(3)), before)


def test_variants_are_the_image_and_changes_of_it_drawn_alike_by_each_epoch(activations):
    pool = pool_of(2, 2)
    given, _ = activations(pool)
    chosen = np.zeros(300, dtype=np.int64)
    drawn = given.drawn(pool, chosen, 1, first=0)
    kinds, counts = np.unique(drawn.flatten(1).numpy(), axis=0, return_counts=True)
    assert len(kinds) == 3
    assert counts.min() > 70  # of 100 expected, with a standard deviation of 8
    plain = given.plain(pool, chosen[:1]).flatten(1).numpy()
    assert (kinds == plain).all(axis=1).sum() == 1
    assert not torch.equal(drawn, given.drawn(pool, chosen, 2, first=0))
    assert torch.equal(drawn[7:], given.drawn(pool, chosen[7:], 1, first=7))


def test_of_one_variant_the_image_is_as_it_is(activations, monkeypatch):
    monkeypatch.setattr(kept, "VARIANTS", 1)
    pool = pool_of(2, 2)
    given, _ = activations(pool)
    chosen = np.array([1, 0, 1])
    assert torch.equal(given.drawn(pool, chosen, 1, first=0), given.plain(pool, chosen))


def test_a_random_origin_has_nothing_to_freeze_or_to_stay_near(recipe):
    first = on_parent(recipe, network.random_origin(0))
    assert (first.frozen_through, first.ema_length) == ("none", 0)
    sealed = network.Model({}, ("a",), {"day": DAY})
    assert on_parent(recipe, sealed) == recipe


def test_activations_that_were_not_used_for_longest_go_first(activations, tmp_path):
    one, two = pool_of(4, 2), pool_of(6, 2)
    activations(one)
    size = next(tmp_path.glob("*/*")).stat().st_size
    activations(two)
    activations(one)
    prune([tmp_path], most=5 * size)
    left = {path.name for path in tmp_path.glob("*/*")}
    assert set(one.images) < left
    assert len(left) == 5
    prune([tmp_path], most=0)
    assert not list(tmp_path.iterdir())
