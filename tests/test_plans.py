"""The plans of a day, weights and replay set, have the shares and chances that they claim."""

import math
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import DAYS, image, take_in
from dayfold.ledger import tables
from dayfold.ledger.tables import Replayed, VersionWeight
from dayfold.project import params as params_file
from dayfold.stages import replay, weights

TODAY = "2025-07-01"
# 21 training images: cat 12 (10 + 2), dog 6 (0 + 6), eel 3 (1 + 2).
COUNTS = {DAYS[0]: {"cat": 10, "eel": 1}, DAYS[1]: {"cat": 2, "dog": 6, "eel": 2}}
WEIGHTS = {DAYS[0]: 1.0, DAYS[1]: 3.0}


def pool(counts=COUNTS):
    rows = []
    for day, classes in counts.items():
        for label, count in classes.items():
            for _ in range(count):
                number = len(rows)
                rows.append((image(number), f"{day}/{label}/{number}.png", label, "", "train", day))
    names = ["image", "path", "label", "group", "split", "day"]
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")


POOL = pool()


def select(old=POOL, *, policy="class_balanced", size=9, seed=0, day=TODAY):
    return replay.select(old, weights=WEIGHTS, policy=policy, size=size, seed=seed, day=day)


def test_recent_versions_weigh_more_than_older_ones():
    found = weights.step([3, 2, 1, 0], recent=3.0, base=1.0, recent_versions=2)
    assert found == [1.0, 1.0, 3.0, 3.0]
    assert weights.step([0], recent=2.5, base=1.0, recent_versions=1) == [2.5]
    assert weights.step([], recent=3.0, base=1.0, recent_versions=1) == []


def test_shares_are_as_the_design_works_them_out():
    # 300 new images of weight 3 against 30,000 old ones: 900 / 30,900, and against 900: a half.
    assert weights.shares([30_000, 300], [1.0, 3.0])[1] == 900 / 30_900
    assert round(900 / 30_900, 3) == 0.029
    assert weights.shares([900, 300], [1.0, 3.0]) == [0.5, 0.5]


@given(st.lists(st.tuples(st.integers(1, 9999), st.floats(0.01, 100)), min_size=1, max_size=9))
def test_shares_add_up(days):
    found = weights.shares(*zip(*days, strict=True))
    assert math.isclose(sum(found), 1)
    assert all(0 < share <= 1 for share in found)


def test_nothing_in_the_pool_has_no_share():
    assert weights.shares([0, 0], [1.0, 3.0]) == [0.0, 0.0]


@pytest.mark.parametrize(
    ("policy", "size", "expected"),
    [
        # 7 of 21: a third of every day.
        ("uniform", 7, [11 / 3, 10 / 3]),
        # 3 of each class: cat 3 of 12, dog 3 of 6, eel all of 3.
        ("class_balanced", 9, [10 / 4 + 1, 2 / 4 + 3 + 2]),
        # eel gives 3, the others share 11: 5.5 of 12 cats, 5.5 of 6 dogs.
        ("class_balanced", 14, [10 * 5.5 / 12 + 1, 2 * 5.5 / 12 + 5.5 + 2]),
        ("uniform", 21, [11, 10]),
        ("uniform", 99, [11, 10]),
        ("class_balanced", 99, [11, 10]),
        ("uniform", 0, [0, 0]),
        ("class_balanced", 0, [0, 0]),
    ],
)
def test_the_expected_replay_of_a_day_is_as_worked_out_by_hand(policy, size, expected):
    found = weights.expected_replay(COUNTS, policy=policy, size=size)
    assert list(found) == list(COUNTS)
    assert list(found.values()) == pytest.approx(expected)


@pytest.mark.parametrize("policy", ["uniform", "class_balanced"])
def test_the_first_day_replays_nothing(policy):
    assert weights.expected_replay({}, policy=policy, size=300) == {}
    assert weights.expected_replay({DAYS[0]: {}}, policy=policy, size=300) == {DAYS[0]: 0}
    assert select(POOL.clear(), policy=policy) == []


@pytest.mark.parametrize("policy", ["uniform", "class_balanced"])
def test_the_replay_set_of_each_day_is_as_large_as_expected(policy):
    size, seeds = 10, 600
    counts = np.zeros((seeds, 2))
    for seed in range(seeds):
        days = Counter(row.day for row in select(policy=policy, size=size, seed=seed))
        counts[seed] = [days[DAYS[0]], days[DAYS[1]]]
    assert (counts.sum(axis=1) == size).all()
    expected = list(weights.expected_replay(COUNTS, policy=policy, size=size).values())
    error = counts.std(axis=0) / np.sqrt(seeds)
    assert (np.abs(counts.mean(axis=0) - expected) < 4 * error).all()


@pytest.mark.parametrize(
    ("policy", "size", "chance"),
    [
        ("uniform", 7, {"cat": 1 / 3, "dog": 1 / 3, "eel": 1 / 3}),
        ("class_balanced", 9, {"cat": 3 / 12, "dog": 3 / 6, "eel": 1}),
        # Levels of 10/3 for cat and dog are met in the long run: 3 or 4 of them a day.
        ("class_balanced", 10, {"cat": 3.5 / 12, "dog": 3.5 / 6, "eel": 1}),
    ],
)
def test_every_image_is_replayed_with_its_exact_chance(policy, size, chance):
    seeds, times = 600, Counter()
    for seed in range(seeds):
        times.update(row.image for row in select(policy=policy, size=size, seed=seed))
    for row in POOL.iter_rows(named=True):
        p = chance[row["label"]]
        error = math.sqrt(p * (1 - p) / seeds)
        assert abs(times[row["image"]] / seeds - p) <= 4.5 * error


def test_classes_are_balanced_from_the_head_of_the_list_on():
    rows = select(size=14)
    assert [row.label for row in rows[:9]] == ["cat", "dog", "eel"] * 3
    classes = Counter(row.label for row in rows)
    assert classes["eel"] == 3
    assert {classes["cat"], classes["dog"]} == {5, 6}


def test_a_replay_set_holds_no_image_twice_and_each_with_its_day_s_weight():
    for policy in ("uniform", "class_balanced"):
        rows = select(policy=policy, size=15)
        assert len({row.image for row in rows}) == 15
        known = {row["image"]: row for row in POOL.iter_rows(named=True)}
        for row in rows:
            source = known[row.image]
            assert (row.path, row.label, row.day) == (
                source["path"],
                source["label"],
                source["day"],
            )
            assert row.weight == WEIGHTS[row.day]
            assert 0 < row.key < 1


def test_uniform_selects_in_order_of_the_keys():
    keys = [row.key for row in select(policy="uniform", size=15)]
    assert keys == sorted(keys)


@pytest.mark.parametrize("policy", ["uniform", "class_balanced"])
@pytest.mark.parametrize(("size", "expected"), [(0, 0), (1, 1), (21, 21), (300, 21)])
def test_a_replay_set_is_as_large_as_asked_or_all_there_is(policy, size, expected):
    assert len(select(policy=policy, size=size)) == expected


@pytest.mark.parametrize("policy", ["uniform", "class_balanced"])
def test_a_replay_set_does_not_depend_on_row_order(policy):
    expected = select(policy=policy)
    for seed in range(5):
        assert select(POOL.sample(fraction=1, shuffle=True, seed=seed), policy=policy) == expected


@pytest.mark.parametrize("policy", ["uniform", "class_balanced"])
def test_the_draw_is_fresh_each_day_and_for_each_seed(policy):
    today = {row.image for row in select(policy=policy, size=6)}
    assert today == {row.image for row in select(policy=policy, size=6)}
    assert today != {row.image for row in select(policy=policy, size=6, day="2025-07-02")}
    assert today != {row.image for row in select(policy=policy, size=6, seed=1)}


def test_a_smaller_replay_set_is_the_head_of_a_larger_one():
    assert select(policy="uniform", size=15)[:6] == select(policy="uniform", size=6)
    assert select(size=9)[:6] == select(size=6)


def test_the_stages_write_what_the_functions_say(project, capsys):
    params_file.edit(project.params, {"replay.size": 4})
    take_in(project, DAYS[0], {"cat": range(10), "dog": range(10, 20)})
    history = take_in(project, DAYS[1], {"cat": range(20, 30)})
    params = params_file.read(project.params)
    capsys.readouterr()
    weights.run(project, params)
    # Of ten images seven are trained on; two old ones of each class: 4 x 1 against 7 x 3.
    found = [VersionWeight(*row) for row in tables.read(project.weights, VersionWeight).rows()]
    assert found == [
        VersionWeight(DAYS[0], 1, 14, 1.0, 4 / 25),
        VersionWeight(DAYS[1], 0, 7, 3.0, 21 / 25),
    ]
    assert capsys.readouterr().out == (
        "today: 7 training images of weight 3, 84.0% of the draws expected\n"
        "earlier: 14 on 1 days, 4 replayed, 16.0% of the draws expected\n"
    )
    replay.run(project, params)
    rows = [Replayed(*row) for row in tables.read(project.replay, Replayed).rows()]
    assert Counter(row.label for row in rows) == {"cat": 2, "dog": 2}
    old = set(history.split("train").filter(day=DAYS[0])["image"])
    assert {row.image for row in rows} <= old
    assert capsys.readouterr().out == (
        "4 of 14 earlier images (class_balanced): 2 classes, 1 days\n"
    )
