"""Frozen depth: what is frozen stays to the bit, and what is kept of it changes no bit either."""

import shutil

import numpy as np
import pytest
import torch

from dayfold.learning import device, fitting, frozen, inputs, network, pixels
from dayfold.learning.inputs import DEPTHS, Activations, Job, Pool
from dayfold.ledger.image_cache import ImageCache, prune
from dayfold.project import params as params_file
from dayfold.project.params import NETWORK
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


@pytest.fixture
def activations(recipe, machine, tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "VARIANTS", 3)

    def make(*pools, start=None, fingerprint=FINGERPRINT, day=DAY, **options):
        own = recipe.model_copy(update=options)
        job = Job(start or start_of(3), None, own, 0, day, machine)
        made = Activations(job, tmp_path, fingerprint)
        return made, made.compute(*pools)

    return make


@pytest.fixture
def train(recipe, machine, activations):
    def run(pool, of=NETWORK, **options):
        own = recipe.model_copy(update=options)
        validation, steps = pool_of(4, 3), []
        given = None
        if own.frozen_through != "none":
            given, _ = activations(pool, validation, start=start_of(3, of=of), **options)
        job = Job(start_of(3, of=of), start_of(2, of=of), own, 0, DAY, machine)
        state, drawn, *_ = fitting.fit(job, pool, validation, report=steps.append, inputs=given)
        return state, steps, drawn.tolist()

    return run


LAYERS = [name for name, _ in network.build(start_of(1), 32).named_children()]


@pytest.mark.parametrize(
    ("depth", "of"), [*((depth, NETWORK) for depth in DEPTHS), ("layer2", "resnet50")]
)
def test_what_is_frozen_stays_to_the_bit_and_the_rest_learns(train, activations, depth, of):
    pool, start = pool_of(10, 3), start_of(3, of=of)
    options = {"ema_length": 0.5, "distill": 0.5}
    after, steps, _ = train(pool, of, frozen_through=depth, **options)
    assert all(np.isfinite(step.loss) for step in steps)
    kept = LAYERS[: DEPTHS[depth]]
    for name, tensor in start.state.items():
        assert torch.equal(tensor, after[name]) == (name.partition(".")[0] in kept), name
    # And the two parts are the network.
    given, made = activations(pool, start=start, frozen_through=depth)
    assert made == 0
    net = network.build(start, 32).eval()
    with torch.inference_mode():
        whole = net(pixels.normalised(pool.pixels))
        parts = given.trained_part(net).eval()(given.eval_batch(pool, np.arange(10)))
    # Kept as float16, which has 11 bits.
    assert torch.allclose(parts, whole, atol=2e-2 * float(whole.abs().max()))


def test_a_training_is_the_same_whether_activations_are_kept_or_made(train, tmp_path):
    pool = pool_of(10, 3)
    one, *rest = train(pool)
    two, *again = train(pool)
    shutil.rmtree(next(tmp_path.iterdir()))
    # As on a day that replays other images beside these.
    train(Pool(pool.pixels[:4], pool.targets[:4], pool.images[:4], pool.weights[:4]))
    three, *anew = train(pool)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(torch.equal(one[name], three[name]) for name in one)
    assert rest == again == anew
    # The plan is that of a training of the whole network.
    assert train(pool, frozen_through="none")[2] == rest[1]


def test_an_image_s_activations_are_made_once_for_all_that_they_depend_on(activations):
    pool = pool_of(6, 3)
    assert activations(pool)[1] == 6
    # On another day too, from a model that learnt beyond the frozen layers.
    learnt = start_of(3)
    learnt.state["fc.weight"][:] = 1
    learnt.state["layer3.0.conv1.weight"][:] = 1
    assert activations(pool, start=learnt, day="2025-06-03")[1] == 0
    for other in (
        {"start": start_of(3, seed=1)},
        {"fingerprint": {"cpu": "two"}},
        {"frozen_through": "layer1"},
    ):
        assert activations(pool, **other)[1] == 6


def test_kept_activations_that_are_damaged_are_made_again(activations, tmp_path):
    pool = pool_of(3, 3)
    given, _ = activations(pool)
    before = given.eval_batch(pool, np.arange(3))
    one, two, _ = sorted(tmp_path.glob("*/*"))
    data = bytearray(one.read_bytes())
    data[100] ^= 1
    one.write_bytes(data)
    two.write_bytes(two.read_bytes()[:-2])
    given, made = activations(pool)
    assert made == 2
    assert torch.equal(given.eval_batch(pool, np.arange(3)), before)


def test_variants_are_the_image_and_changes_of_it_drawn_alike_by_each_epoch(activations):
    pool = pool_of(2, 2)
    given, _ = activations(pool)
    chosen = np.zeros(300, dtype=np.int64)
    drawn = given.train_batch(pool, chosen, 1, first=0)
    kinds, counts = np.unique(drawn.flatten(1).numpy(), axis=0, return_counts=True)
    assert len(kinds) == 3
    assert counts.min() > 70  # of 100 expected, with a standard deviation of 8
    plain = given.eval_batch(pool, chosen[:1]).flatten(1).numpy()
    assert (kinds == plain).all(axis=1).sum() == 1
    assert not torch.equal(drawn, given.train_batch(pool, chosen, 2, first=0))
    assert torch.equal(drawn[7:], given.train_batch(pool, chosen[7:], 1, first=7))


def test_with_all_layers_frozen_a_head_is_all_that_is_made(recipe, machine, tmp_path):
    own = recipe.model_copy(update={"frozen_through": "all"})
    job = Job(start_of(3), None, own, 0, DAY, machine)
    pool, validation, said = pool_of(12, 3), pool_of(5, 3), []

    def fit(pool=pool):
        return frozen.fit(job, pool, validation, tmp_path, FINGERPRINT, said.append)[0]

    first = fit()
    assert len(said) == 17
    assert (first.drawn == 1).all()
    changed = [
        name for name, one in first.state.items() if not torch.equal(one, job.start.state[name])
    ]
    assert changed == ["fc.weight", "fc.bias"]
    net = network.build(network.Model(first.state, job.start.classes, {}), 32)
    whole = network.outputs(net, validation.pixels, machine)
    assert torch.allclose(whole, first.logits, atol=1e-3 * float(whole.abs().max()))
    # Kept, partly kept or made anew: the same bits.
    for image in pool.images[:4]:
        next(tmp_path.glob(f"*/{image}")).unlink()
    second = fit()
    shutil.rmtree(next(tmp_path.iterdir()))
    third = fit()
    for name, one in first.state.items():
        assert torch.equal(one, second.state[name])
        assert torch.equal(one, third.state[name])


def test_an_image_of_weight_two_counts_as_two_images_and_one_is_enough():
    rows, held = torch.from_numpy(np.random.default_rng(0).normal(size=(14, 6))), torch.ones(2, 6)
    targets, wanted = torch.arange(14) % 3, torch.tensor([0, 1])
    weights = torch.ones(14)
    weights[3] = 2
    twice = frozen.ridge(rows, targets, 3, weights, held, wanted)
    more = [torch.cat([one, one[3:4]]) for one in (rows, targets)]
    again = frozen.ridge(*more, 3, torch.ones(15), held, wanted)
    assert all(torch.allclose(one, other) for one, other in zip(twice, again, strict=True))
    # Of one image, and without validation.
    none = (torch.zeros(0, 512), torch.zeros(0).long())
    weight, bias = frozen.ridge(torch.ones(1, 512), torch.tensor([0]), 1, torch.ones(1), *none)
    assert (weight.abs().sum(), bias.tolist()) == (0, [1.0])


def test_a_random_origin_has_nothing_to_freeze_or_to_stay_near(recipe):
    first = fitting.on_parent(recipe, network.random_origin(0))
    assert (first.frozen_through, first.ema_length) == ("none", 0)
    head = recipe.model_copy(update={"frozen_through": "all"})
    assert fitting.on_parent(head, network.random_origin(0)) == head
    sealed = network.Model({}, ("a",), {"day": DAY})
    assert fitting.on_parent(recipe, sealed) == recipe


def test_what_was_kept_and_not_used_for_longest_goes_first(tmp_path):
    kept = ImageCache.of(tmp_path, {"format": 1})
    for image in ("a", "b", "c", "d"):
        kept.write(image, b"activations")
    assert kept.read("a") == b"activations"
    prune([tmp_path], max_bytes=2 * kept.path("a").stat().st_size)
    assert {path.name for path in tmp_path.glob("*/*")} == {"a", "d"}
    prune([tmp_path], max_bytes=0)
    assert not list(tmp_path.iterdir())
