"""What no class explains: distances, the line drawn on them, and what a day measures of it."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

import dayfold
from builders import image
from builders import table as rows_of
from dayfold.demo import DAYS
from dayfold.figures import metrics
from dayfold.learning import network, novelty
from dayfold.learning.novelty import NoveltyDetector
from dayfold.ledger import manifest, tables
from dayfold.ledger.tables import Unknown, Unlike, schema
from dayfold.project import params as params_file
from dayfold.stages import evaluate

ONE, TWO, THREE = DAYS[:3]
AXES = torch.eye(3, 512)


def test_near_is_what_is_like_a_class_and_decided():
    features = torch.stack([4 * AXES[0], 4 * AXES[1], 4 * AXES[2], 0 * AXES[0]])
    known = NoveltyDetector.fit(features, torch.tensor([0, 1, 2, 2]), 4)
    assert torch.equal(known.center, features.mean(dim=0))
    for label in (0, 1):
        aim = features[label] - known.center
        assert torch.allclose(known.means[label], aim / aim.norm())
    assert not known.means[3].any()  # a class without images is near to nothing
    sure, torn = torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 4), 0.25)
    at = known.center + 7 * known.means[:1]
    assert known.distance(at, sure).item() == pytest.approx(0, abs=1e-6)
    assert known.distance(at, torn).item() == pytest.approx(1, abs=1e-6)
    half = torch.tensor([[0.5, 0.5, 0, 0]])  # log 2 of log 4
    assert known.distance(at, half).item() == pytest.approx(0.5, abs=1e-6)
    away = known.center + 3 * torch.eye(4, 512)[3:]
    assert known.distance(away, sure).item() == pytest.approx(1, abs=1e-6)


@given(count=st.integers(0, 60), share=st.sampled_from((0.5, 0.9, 0.95)))
def test_the_limit_is_the_smallest_that_keeps_its_promise(count, share):
    known = NoveltyDetector(AXES[0], AXES, torch.arange(count, dtype=torch.float32))
    limit = known.limit(share)
    # Of n + 1 equally likely places of a further image, those up to the limit are a share of them.
    enough = [place for place in range(count) if (place + 1) / (count + 1) >= share - 1e-9]
    assert limit == (float(enough[0]) if enough else None)


def test_as_many_images_of_each_class_make_the_means_as_there_are():
    ids = [image(number) for number in range(700)]
    targets = np.array([0] * 650 + [1] * 40 + [2] * 10)
    chosen = novelty.sample(ids, targets)
    assert np.bincount(targets[chosen]).tolist() == [novelty.IMAGES - 50, 40, 10]
    order = np.random.default_rng(0).permutation(700)
    again = novelty.sample([ids[at] for at in order], targets[order])
    assert {ids[at] for at in chosen} == {ids[order[at]] for at in again}


VALUES = st.lists(st.integers(0, 5), min_size=1, max_size=20)


@given(far=VALUES, near=VALUES)
def test_the_area_under_the_curve_is_scikit_learn_s(far, near):
    found = evaluate.auroc(pl.Series(far, dtype=pl.Float64), pl.Series(near, dtype=pl.Float64))
    truth = [1] * len(far) + [0] * len(near)
    assert found == pytest.approx(roc_auc_score(truth, far + near))


def test_images_are_counted_by_class_and_patients_once():
    rows = [
        ("a", "p1", 0.1), ("a", "p1", 0.5), ("b", "", 0.2),  # known
        ("c", "p1", 0.6), ("c", "p2", 0.3), ("d", "", 0.9),  # new
    ]  # fmt: skip
    asked = pl.DataFrame(rows, schema=["label", "group", "distance"], orient="row")
    found = evaluate.count_unknown(asked, {"a", "b"}, 0.4)
    assert found == [
        Unknown("", 0, 3, 2, 1, None),
        Unknown("a", 0, 2, 1, 1, None),
        Unknown("b", 0, 1, 1, 0, None),
        Unknown("", 1, 3, 3, 2, pytest.approx(8 / 9)),
        Unknown("c", 1, 2, 2, 1, pytest.approx(5 / 6)),
        Unknown("d", 1, 1, 1, 1, 1.0),
    ]
    values, ends = metrics.unknown(pl.DataFrame(found, schema=schema(Unknown), orient="row"))
    assert (values["found"], values["false_alarms"]) == (2 / 3, 1 / 3)
    assert values["units"] == {"new": 3, "known": 2}
    assert ends["found"]["low"] < 2 / 3 < ends["found"]["high"]
    off = evaluate.count_unknown(asked, {"a", "b"}, None)
    assert {row.unknown for row in off} == {None}
    assert [row.auroc for row in off] == [row.auroc for row in found]


@pytest.mark.slow
def test_yesterday_s_model_says_of_today_s_images_what_the_day_recorded(three_days):
    yesterday = dayfold.load(three_days.root, TWO)
    today = manifest.added(manifest.history(three_days, THREE), THREE)
    answers = yesterday.predict(three_days.root / path for path in today["path"])
    far = dict(zip(today["path"], (answer.distance for answer in answers), strict=True))
    (listed,) = [tables.read(three_days.plot("unlike"), Unlike)]
    assert dict(listed.select("path", "distance").iter_rows()) == pytest.approx(
        dict(sorted(far.items(), key=lambda one: -one[1])[: evaluate.MOST_UNLIKE]), abs=1e-4
    )
    table = tables.unknown(three_days, THREE)
    new = sorted(set(today["label"]) - set(yesterday.classes))
    assert table.filter(pl.col("new") == 1)["label"].to_list() == ["", *new]
    called = sum(
        answer.unknown
        for answer, label in zip(answers, today["label"], strict=True)
        if label in new
    )
    assert table.filter(new=1, label="")["unknown"].item() == called
    assert tables.unknown(three_days, ONE).is_empty()  # nothing was known before


@pytest.mark.slow
def test_predict_calls_unknown_what_is_farther_than_the_limit_of_what_the_file_knows(
    copy, tmp_path
):
    model = network.load(copy.model)
    assert model.classes_with_means == frozenset(model.live)
    assert model.novelty.means.shape == (len(model.live), 512)
    assert model.novelty.means.norm(dim=1).tolist() == pytest.approx([1.0] * len(model.live))
    assert isinstance(model.limit(0.95), float)
    assert model.limit(None) == "predict.known_share is null"
    old = network.Model(model.state, model.classes, model.metadata)
    assert old.limit(0.95) == f"the model of {THREE} has no mean features of its classes"
    params_file.edit(copy.params, {"predict.known_share": 0.05})  # nearly all is farther
    asked = copy.images(ONE)
    said = copy.dayfold("predict", str(asked), "--csv", str(tmp_path / "said.csv"))
    rows = rows_of(tmp_path / "said.csv")
    called = sum(int(row["unknown"]) for row in rows)
    limit = dayfold.load(copy.root).limit
    assert called == sum(float(row["distance"]) > limit for row in rows) > len(rows) / 2
    assert f"{called} unknown (distance above {limit:.3f})" in said
