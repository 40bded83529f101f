"""Training and pixels: stateless, bounded, and sensible with few images."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from builders import DAYS, make_trainable, open_day, place, run_stages, take_in
from dayfold.errors import CycleError, ImageMissingError, ModelError, TrainingError
from dayfold.learning import adamw, checkpoint, device, fitting, network, pixels
from dayfold.learning.adamw import AdamW
from dayfold.learning.inputs import Images, Job, Pool
from dayfold.ledger import manifest
from dayfold.ledger.decode import placeholder
from dayfold.project import params as params_file
from dayfold.project.files import sha256
from dayfold.project.layout import Project
from dayfold.project.params import Predict
from dayfold.serve import predicting
from dayfold.serve.model import Classifier
from dayfold.stages import replay, snapshot, train, weights
from pools import pool_of, start_of

NO_CHANGE = dict.fromkeys(
    ("flip", "rotate_degrees", "shift", "scale", "brightness", "contrast"), 0.0
)


@pytest.fixture(scope="module")
def recipe(repository):
    whole = params_file.read(repository / "params.yaml").train
    return whole.model_copy(update={"image_size_px": 32, "updates": 6, "batch_size": 8})


def fitted(pool, validation, recipe, classes, machine=None, teacher=None, keep=None, **options):
    """What `fit` makes of a pool, from a start that is given or of so many classes; the steps."""
    machine = machine or device.resolve(device="cpu", precision="fp32", threads=1)
    start = start_of(classes) if isinstance(classes, int) else classes
    steps = options.pop("steps", [])
    own = recipe.model_copy(update=options)
    made = fitting.fit(
        Job(start, teacher, own, 0, DAYS[1], machine),
        pool,
        validation,
        report=steps.append,
        keep=keep or (lambda _state: None),
    )
    return made, steps


def trained(pool: Pool, recipe, classes: int, machine=None, teacher=None, **options):
    made, steps = fitted(pool, pool_of(4, classes), recipe, classes, machine, teacher, **options)
    return made.state, steps, made.drawn


def test_a_day_is_the_same_to_the_bit_again_and_in_whatever_order_its_images_are(recipe):
    pool = pool_of(10, 3)
    turned = Pool(pool.pixels.flip(0), pool.targets.flip(0), pool.images[::-1], pool.weights[::-1])
    one, steps, drawn = trained(pool, recipe, 3)
    two, again, _ = trained(pool_of(10, 3), recipe, 3)
    three, _, drawn_turned = trained(turned, recipe, 3)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(torch.equal(one[name], three[name]) for name in one)
    assert steps == again
    assert drawn.tolist() == drawn_turned.tolist()[::-1]
    # Taps that saw padding only are as they were.
    before, after = (s["layer4.1.conv1.weight"] for s in (start_of(3).state, one))
    assert not torch.equal(after[:, :, 1, 1], before[:, :, 1, 1])
    after[:, :, 1, 1] = before[:, :, 1, 1]
    assert torch.equal(after, before)


def test_validation_is_asked_of_the_network_that_is_kept_and_need_not_be(recipe):
    validation = pool_of(7, 3)
    made, _ = fitted(pool_of(10, 3), validation, recipe, 3)
    net = network.build(network.Model(made.state, start_of(3).classes, {}), recipe.image_size_px)
    machine = device.resolve(device="cpu", precision="fp32", threads=1)
    assert torch.equal(network.outputs(net, validation.pixels, machine), made.logits)
    made, _ = fitted(pool_of(10, 3), pool_of(0, 3), recipe, 3, updates=1)
    assert made.logits.shape == (0, 3)


def test_the_budget_is_updates_times_batch_in_five_epochs_however_many_images(recipe):
    epochs = {1: [5], 7: [1, 2, 3, 3, 4, 5, 5], 12: [1, 1, 2, 2, 3, 3, 3, 4, 4, 5, 5, 5]}
    for count, updates in ((3, 1), (50, 7), (1, 12)):
        # Of one image, only one of the two classes has any.
        state, steps, drawn = trained(pool_of(count, 2), recipe, 2, updates=updates)
        assert all(torch.isfinite(tensor).all() for tensor in state.values())
        assert drawn.sum() == updates * 8
        assert [step.step for step in steps] == [*range(1, updates + 1)]
        assert [step.epoch for step in steps] == epochs[updates]
        assert all(np.isfinite(step.loss) for step in steps)


def test_draws_follow_the_weights(recipe):
    pool = pool_of(8, 2)
    heavy = Pool(pool.pixels, pool.targets, pool.images, [3.0] * 4 + [1.0] * 4)
    _, _, drawn = trained(heavy, recipe, 2, updates=10)
    # 16 draws an epoch, five epochs: 3 of 4 parts for the first four images, each epoch's within 1;
    # of them each image 3 draws an epoch, or 1.
    assert abs(drawn[:4].sum() - 60) < 5
    assert np.abs(drawn - np.repeat([15, 5], 4)).max() < 5


def test_distillation_is_nothing_at_the_teacher_s_answers_and_the_divergence_elsewhere(recipe):
    machine = device.resolve(device="cpu", precision="fp32", threads=1)
    teacher = start_of(2, seed=1)
    asked = recipe.model_copy(update={"distill": 1.0})
    job = Job(start_of(3), teacher, asked, 0, "2025-06-02", machine)
    loss = fitting._Loss(job, pool_of(4, 3), Images(job))
    net = network.build(teacher, 32).eval()
    batch = pixels.normalised(pool_of(4, 3).pixels)
    with torch.no_grad():
        known = net(batch)
        # Three classes today: the third is none of the teacher's, and free.
        same = torch.cat([known, torch.full((4, 1), 9.0)], dim=1)
        assert loss._distance(known, same[:, :2]).numpy() == pytest.approx(0, abs=1e-6)
        flat = torch.zeros(4, 2)
        wanted = (known / 2).softmax(1)
        # T^2 times the sum of p log(p / q), q a half each.
        by_hand = 4 * (wanted * (wanted / 0.5).log()).sum(1)
        found = loss._distance(known, flat).numpy()
        assert found == pytest.approx(by_hand.numpy(), rel=1e-5, abs=1e-6)
        # Of the image of a third class yesterday's model knows nothing: it is not asked.
        known = torch.tensor([1.0, 1.0, 0.0, 1.0])
        three = torch.zeros(4, 3)
        whole = loss(lambda _: three, batch, np.arange(4)).item()
        assert whole == pytest.approx(math.log(3) + (by_hand * known).mean().item())


def test_a_class_without_images_is_held_to_yesterday_and_nothing_speaks_against_it(recipe):
    machine = device.resolve(device="cpu", precision="fp32", threads=1)
    teacher, pool = start_of(2, seed=1), pool_of(4, 3)
    pool = replace(pool, targets=torch.tensor([1, 2, 1, 2]))  # no image of the first class
    job = Job(start_of(3), teacher, recipe, 0, "2025-06-02", machine, unseen=(0,))
    loss = fitting._Loss(job, pool, Images(job))
    batch = pixels.normalised(pool.pixels)
    with torch.no_grad():
        wanted = network.build(teacher, 32).eval()(batch)[:, 0]
    answers = torch.zeros(4, 3)
    answers[:, 0] = wanted + 0.5
    answers.requires_grad_()
    found = loss(lambda _: answers, batch, np.arange(4))
    # Two classes alike, and half a logit squared.
    assert found.item() == pytest.approx(math.log(2) + fitting.UNSEEN_WEIGHT * 0.25, abs=1e-5)
    found.backward()
    assert answers.grad[:, 0].tolist() == pytest.approx([2 * 0.5 / 4] * 4, abs=1e-5)


def test_the_mean_of_the_weights_is_the_exponential_one(recipe):
    kept: list[torch.Tensor] = []
    mean, _ = fitted(
        pool_of(6, 2),
        pool_of(4, 2),
        recipe,
        2,
        keep=lambda state: kept.append(state()["net.fc.weight"].clone()),
        ema_length=1.0,
        updates=2,
    )
    last, _, _ = trained(pool_of(6, 2), recipe, 2, ema_length=0.0, updates=2)
    # It begins at the first update's weights; over 2 updates its decay is a half.
    assert not torch.allclose(kept[0], last["fc.weight"], atol=1e-5)
    by_hand = (kept[0] + last["fc.weight"]) / 2
    assert torch.allclose(mean.state["fc.weight"], by_hand, atol=1e-6)
    still, _, _ = trained(pool_of(6, 2), recipe, 2, ema_length=1.0, learning_rate=1e-12)
    assert torch.allclose(still["fc.weight"], start_of(2).state["fc.weight"], atol=1e-6)


def start_with(name: str, value: float) -> network.Model:
    start = start_of(3)
    start.state[name] = start.state[name].clone()
    start.state[name].view(-1)[0] = value
    return start


@pytest.mark.parametrize(
    ("start", "options", "said"),
    [
        (start_with("fc.weight", math.nan), {}, r"update 1 of 6.*: the loss is no longer"),
        (start_of(3), {"learning_rate": 1e30}, r"update \d of 6, at the learning rate"),
        (start_of(3), {"learning_rate": 1e30, "updates": 1}, "update 1 of 1, at .* rate 1e\\+30"),
        # In training a batch is normalised by its own statistics, so no loss shows this one.
        (start_with("bn1.running_mean", math.inf), {}, r"update 1 .*: the weight bn1\.running_"),
    ],
)
def test_what_is_no_longer_finite_is_told_with_the_update_and_the_rate(
    recipe, start, options, said
):
    steps = []
    with pytest.raises(TrainingError, match=said) as caught:
        fitted(pool_of(8, 3), pool_of(4, 3), recipe, start, steps=steps, **options)
    assert len(steps) < 6
    assert all(math.isfinite(step.loss) for step in steps)
    assert "train.learning_rate" in caught.value.hint
    assert "origin.weights" in caught.value.hint


@pytest.fixture
def planned(tmp_path):
    """A day without validation images, ready to be trained."""
    project = make_trainable(tmp_path / "scans", train__updates=6, train__batch_size=32)
    take_in(project, DAYS[0], {"cat": [1, 3], "dog": [2, 4]})
    run_stages(project, weights, replay)
    return project


def test_a_stage_alone_takes_neither_a_model_nor_shares_of_another_day(planned):
    params = params_file.read(planned.params)
    model = network.load(planned.parent_model)
    network.save(planned.parent_model, model.state, {**model.metadata, "day": "2025-05-30"})
    with pytest.raises(ModelError, match=r"is the model of 2025-05-30, not of origin"):
        train.run(planned, params)
    network.save(planned.parent_model, model.state, model.metadata)
    shares = planned.shares.read_text()
    planned.shares.write_text(shares.replace(DAYS[0], "2025-05-30"))
    with pytest.raises(CycleError, match=f"data/shares.csv lacks classes of {DAYS[0]}"):
        train.run(planned, params)
    planned.weights.write_text(planned.weights.read_text().replace(DAYS[0], "2025-05-30"))
    with pytest.raises(CycleError, match=f"data/weights.csv is not from {DAYS[0]}"):
        replay.run(planned, params)


def test_of_a_training_that_diverged_neither_a_model_nor_a_checkpoint_is_kept(planned, monkeypatch):
    params = params_file.read(planned.params)
    # More than params.yaml may say, so that it happens within a second.
    wild = params.train.model_copy(update={"learning_rate": 1e30})
    monkeypatch.setenv(checkpoint.INTERVAL, "0")
    written = []
    monkeypatch.setattr(checkpoint, "write_bytes", lambda path, _data: written.append(path))
    with pytest.raises(TrainingError):
        train.run(planned, params.model_copy(update={"train": wild}))
    assert written
    assert not planned.checkpoints.exists() or not list(planned.checkpoints.iterdir())
    for made in (planned.model, planned.provenance, planned.plot("training")):
        assert not made.exists()


def test_a_day_without_validation_images_says_that_it_is_not_calibrated(planned, tmp_path, capsys):
    told = "Confidence is not calibrated: 0 validation images; 30 are needed."
    run_stages(planned, train)
    assert told in capsys.readouterr().out
    model = network.load(planned.model)
    assert model.metadata["temperature"] == 1.0
    (image,) = place(tmp_path / "asked", "cat", [5])
    asked = Classifier(model, Predict(threshold=0.5))
    predicting.predict(asked, [image], top=1, csv=None)
    unknown = "No image is called unknown: too few validation images (0); 21 are needed."
    assert capsys.readouterr().out.splitlines()[-2:] == [unknown, told]


def test_too_few_validation_images_are_pooled_with_yesterday_s_answers_on_what_is_new_to_it(
    planned, capsys
):
    # Of known classes: 60 images whose labels mean nothing, so many are wrong. Eels are new.
    params_file.edit(planned.params, {"data.group": r"/(P\d*)"})
    run_stages(planned, train)
    pooled = []
    for day, first in ((DAYS[1], 100), (DAYS[2], 200)):
        shutil.copyfile(planned.model, planned.parent_model)
        open_day(planned, day)
        for number in range(first, first + 60):
            label = ("cat", "dog")[number % 2]
            place(planned.images(day), label, [number], f"P{number}_")
        place(planned.images(day), f"eel{first}", range(first + 60, first + 66), f"P{first + 2}_")
        run_stages(planned, snapshot, weights, replay, train)
        made = json.loads(planned.provenance.read_bytes())["validation"]
        pooled.append(made["pooled"])
    images = manifest.history(planned, DAYS[2]).images.filter(day=DAYS[2], split="train")
    count = images.filter(pl.col("label").is_in(["cat", "dog"])).height
    said = capsys.readouterr().out
    assert pooled == [0, count]  # none of the first evening's model
    on = f"{made['images']} validation images and {count} images of {DAYS[2]} as yesterday's model"
    assert on in said
    assert f" on {on}" in network.load(planned.model).calibration


def test_the_rate_rises_then_falls_and_the_first_update_weighs_the_same_however_many_follow():
    rates = [fitting.learning_rate(u, 20, peak=1.0) for u in range(20)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert 0 < rates[19] < 0.02
    assert fitting.learning_rate(0, 1, peak=1.0) == 1.0
    for updates in (12, 150, 1000):
        assert fitting.ema_decay(1 / 3, updates) ** updates == pytest.approx(math.exp(-3), abs=0.02)
        assert fitting.ema_decay(0.0, updates) == 0


def test_the_optimizer_makes_torch_s_own_updates_and_decays_no_bias_and_no_batch_norm():
    ours, theirs = (network.build(start_of(1), 32) for _ in range(2))
    matrices = [p for p in theirs.parameters() if p.ndim > 1]
    vectors = [p for p in theirs.parameters() if p.ndim == 1]
    groups = [
        {"params": matrices, "weight_decay": adamw.WEIGHT_DECAY},
        {"params": vectors, "weight_decay": 0.0},
    ]
    pairs = ((ours, AdamW(ours.parameters())), (theirs, torch.optim.AdamW(groups, fused=True)))
    batch = pixels.normalised(pool_of(4, 1).pixels)
    for rate in (0.1, 0.05):
        for net, optimizer in pairs:
            net(batch).pow(2).sum().backward()
            if net is ours:
                optimizer.step(rate)
            else:
                for group in optimizer.param_groups:
                    group["lr"] = rate
                optimizer.step()
            optimizer.zero_grad()
    assert all(
        torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)
    )


def test_nothing_is_changed_a_flip_mirrors_a_shift_moves_and_a_quarter_turn_is_one():
    batch = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    fields = np.full((1, 8), 0.5)
    assert torch.equal(pixels.augmented(batch, fields, **NO_CHANGE), batch)
    flipped = pixels.augmented(batch, fields, **NO_CHANGE | {"flip": 1.0})
    assert torch.allclose(flipped, batch.flip(3), atol=1e-4)
    fields[0, 1] = 1.0
    turned = pixels.augmented(batch, fields, **NO_CHANGE | {"rotate_degrees": 90.0})
    assert any(torch.allclose(turned, batch.rot90(way, (2, 3)), atol=1e-3) for way in (1, -1))
    dot = torch.zeros(1, 3, 32, 32)
    dot[:, :, 8, 4] = 1.0
    fields[0, 2] = 1.0  # the grid moves right by 1/4 of the side: the image by 8 px to the left
    shifted = pixels.augmented(dot.roll(8, 3), fields, **NO_CHANGE | {"shift": 0.25})
    assert torch.allclose(shifted, dot, atol=1e-4)


def test_an_image_drawn_twice_is_changed_twice_by_its_place_in_the_epoch(recipe):
    machine = device.resolve(device="cpu", precision="fp32", threads=1)
    images, pool = Images(Job(start_of(1), None, recipe, 0, DAYS[1], machine)), pool_of(1, 1)
    one, two = images.train_batch(pool, np.array([0, 0]), 1, first=0)
    assert not torch.equal(one, two)
    assert torch.equal(images.train_batch(pool, np.array([0]), 1, first=1)[0], two)


def write_image(path, color=(10, 20, 30), size=(40, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return sha256(path.read_bytes())


def test_an_image_is_whole_with_bars_where_it_is_not_square(tmp_path):
    image = write_image(tmp_path / "a.png")
    loaded = pixels.load(tmp_path, ["a.png"], [image], 32)
    assert loaded.shape == (1, 3, 32, 32)
    assert loaded[0, :, 0, 0].tolist() == [0, 0, 0]
    assert loaded[0, :, 16, 0].tolist() == [10, 20, 30]


def test_many_pixels_lie_in_a_file_without_a_name_and_are_the_same(tmp_path, monkeypatch):
    images = [write_image(tmp_path / f"{grey}.png", (grey, 0, 0)) for grey in range(40)]
    paths = [f"{grey}.png" for grey in range(40)]
    in_memory = pixels.load(tmp_path, paths, images, 32)
    monkeypatch.setattr(pixels, "MAPPED_BYTES", 0)
    mapped = pixels.load(tmp_path, paths, images, 32)
    assert torch.equal(mapped, in_memory)
    assert [path.name for path in Project(tmp_path).scratch.iterdir()] == ["squares"]
    maps = Path("/proc/self/maps")
    if maps.exists():
        (line,) = [line for line in maps.read_text().splitlines() if str(tmp_path) in line]
        assert line.endswith("(deleted)")


def unusable(folder, paths, pins):
    with pytest.raises(ImageMissingError) as caught:
        pixels.load(folder, paths, pins, 32)
    return caught.value.problems, caught.value.hint


def test_missing_changed_and_erased_images_are_all_named_with_the_way_to_get_them_back(tmp_path):
    paths = [f"data/images/2025-06-0{day}/cyst/a.png" for day in (2, 3, 4)]
    pins = [write_image(tmp_path / path, (day, 0, 0)) for day, path in enumerate(paths)]
    (tmp_path / paths[0]).unlink()
    write_image(tmp_path / paths[1], (99, 0, 0))
    problems, hint = unusable(tmp_path, paths, pins)
    changed = "differs from the image that was added"
    assert problems == [f"{paths[0]} is missing", f"{paths[1]} {changed}"]
    assert "dvc checkout --force data/images/2025-06-02 ||" in hint
    assert "2025-06-04" not in hint
    image, other = sha256(b"an image"), sha256(b"another")
    (tmp_path / "a.png").write_bytes(placeholder(image))
    problems, hint = unusable(tmp_path, ["a.png"], [image])
    assert problems == ["a.png was erased: a line of text is in its place"]
    assert "cannot be made again" in hint
    # In the place of another image it is damage.
    assert unusable(tmp_path, ["a.png"], [other])[0] == [f"a.png {changed}"]


def test_threads_and_determinism_are_set_and_bf16_learns_what_fp32_learns(recipe):
    machine = device.resolve(device="cpu", precision="auto", threads=1)
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert machine.precision in ("fp32", "bf16")
    machine = device.resolve(device="cpu", precision="bf16", threads=1)
    _, steps, _ = trained(pool_of(8, 2), recipe, 2, machine)
    _, plain, _ = trained(pool_of(8, 2), recipe, 2)
    assert steps[0].loss == pytest.approx(plain[0].loss, abs=0.05)
