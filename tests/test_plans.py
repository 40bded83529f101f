"""Plans have the shares and chances that they claim, and the same bytes anywhere."""

import math
import os
import subprocess
import sys
from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import (
    DAYS,
    FRACTIONS,
    image,
    make_project,
    open_day,
    place,
    run_stages,
    simulate,
    take_in,
)
from dayfold.figures import metrics
from dayfold.ledger import tables
from dayfold.ledger.tables import PoolShare, Replayed, VersionWeight
from dayfold.project import params as params_file
from dayfold.project.files import sha256
from dayfold.stages import replay, snapshot, weights

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


RANDOM = ("uniform", "class_balanced", "recency")
EVERY = (*RANDOM, "all")


def select(old=POOL, *, policy="class_balanced", size=9, seed=0, day=TODAY, minimum=0):
    return replay.select(
        old,
        weights=WEIGHTS,
        policy=policy,
        size=size,
        minimum_per_class=minimum,
        seed=seed,
        day=day,
    )


def named(rows):
    return list(rows.iter_rows(named=True))


def test_a_weight_falls_in_a_line_from_recent_today_to_base_and_stays_there():
    found = weights.version_weights(range(6), recent=3.0, base=1.0, versions=4)
    assert found == [3.0, 2.5, 2.0, 1.5, 1.0, 1.0]
    assert weights.version_weights([], recent=3.0, base=1.0, versions=4) == []
    # Of one version only today's images weigh more.
    assert weights.version_weights([2, 1, 0], recent=3.0, base=1.0, versions=1) == [1.0, 1.0, 3.0]


# 4 images of today (weight 3), 2 + 1 replayed (weight 1) of 8 + 5 old ones.
NOW = {(TODAY, "cat"): 4}
SEEN = {(DAYS[0], "cat"): 2, (DAYS[0], "dog"): 1}
OLD = {(DAYS[0], "cat"): 8, (DAYS[0], "dog"): 5}


def shares(*, today=NOW, replayed=SEEN, old=OLD, over="pool", class_balance=0.0):
    found = replay.pool_shares(
        today=today,
        replayed=replayed,
        old=old,
        weights={DAYS[0]: 1.0, TODAY: 3.0},
        over=over,
        class_balance=class_balance,
    )
    return {(one.day, one.label): (one.images, one.weight, one.share) for one in found}


OF_DAY, OF_DOGS, OF_CATS = (TODAY, "cat"), (DAYS[0], "dog"), (DAYS[0], "cat")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # Masses 4 x 3, 2 x 1 and 1 x 1, of 15 together.
        (
            {},
            {OF_CATS: (2, 1.0, 2 / 15), OF_DOGS: (1, 1.0, 1 / 15), OF_DAY: (4, 3.0, 12 / 15)},
        ),
        # 2 cats stand for 8, 1 dog for 5: masses 8 and 5 beside the 12 of today.
        (
            {"over": "history"},
            {OF_CATS: (2, 4.0, 8 / 25), OF_DOGS: (1, 5.0, 5 / 25), OF_DAY: (4, 3.0, 12 / 25)},
        ),
        # Cats weigh 14, dogs 1, the mean is 7.5: within cats 2 to 12 as before.
        (
            {"class_balance": 1.0},
            {
                OF_CATS: (2, 7.5 / 14, 0.5 * 2 / 14),
                OF_DOGS: (1, 7.5, 0.5),
                OF_DAY: (4, 3 * 7.5 / 14, 0.5 * 12 / 14),
            },
        ),
        # Cats weigh 8 + 12, dogs 5, each gets half: of the cats' half 8 parts of 20 and 12 of 20.
        (
            {"over": "history", "class_balance": 1.0},
            {
                OF_CATS: (2, 4 * 12.5 / 20, 0.5 * 8 / 20),
                OF_DOGS: (1, 12.5, 0.5),
                OF_DAY: (4, 3 * 12.5 / 20, 0.5 * 12 / 20),
            },
        ),
        # An empty pool has no shares, and the first day only its own.
        ({"today": {}, "replayed": {}, "old": {}}, {}),
        ({"replayed": {}, "old": {}, "class_balance": 1.0}, {OF_DAY: (4, 3.0, 1.0)}),
    ],
)
def test_shares_are_as_worked_out_by_hand(options, expected):
    found = shares(**options)
    assert found.keys() == expected.keys()
    for cell, values in expected.items():
        assert found[cell] == pytest.approx(values, rel=1e-12)


def test_half_a_class_balance_takes_the_root_of_what_the_classes_weigh():
    found = shares(class_balance=0.5)
    assert found[DAYS[0], "dog"][2] == pytest.approx(1 / (1 + 14**0.5))


CELLS = st.dictionaries(
    st.tuples(st.sampled_from(DAYS[:3]), st.sampled_from("abc")), st.integers(1, 99), max_size=9
)


@given(CELLS, CELLS, st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from(["pool", "history"]))
def test_shares_add_up_whatever_the_pool(now, seen, exponent, over):
    found = replay.pool_shares(
        today={(TODAY, label): count for (_, label), count in now.items()},
        replayed=seen,
        old={cell: count * 3 for cell, count in seen.items()},
        weights=dict.fromkeys(DAYS[:3], 1e-6) | {TODAY: 1e6},
        over=over,
        class_balance=exponent,
    )
    assert math.isclose(math.fsum(one.share for one in found), 1 if found else 0)
    assert all(one.weight > 0 and 0 < one.share <= 1 for one in found)
    if exponent == 1 and found:
        classes = {one.label for one in found}
        for label in classes:
            mine = math.fsum(one.share for one in found if one.label == label)
            assert math.isclose(mine, 1 / len(classes), rel_tol=1e-9)


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
        times.update(select(policy=policy, size=size, seed=seed)["image"])
    for row in POOL.iter_rows(named=True):
        p = chance[row["label"]]
        error = math.sqrt(p * (1 - p) / seeds)
        assert abs(times[row["image"]] / seeds - p) <= 4.5 * error


def test_recent_images_are_replayed_more_often_under_recency():
    # Of one image of weight 3 and one of weight 1, u/3 < v has the chance 5/6.
    pair = POOL.filter(pl.col("label") == "cat")[[0, 11]]
    assert pair["day"].to_list() == [DAYS[0], DAYS[1]]
    chosen = [select(pair, policy="recency", size=1, seed=n)["day"].item() for n in range(600)]
    assert abs(chosen.count(DAYS[1]) / 600 - 5 / 6) < 4.5 * math.sqrt(5 / 36 / 600)


def test_a_smaller_replay_set_is_the_head_of_a_larger_one_which_is_balanced_from_there_on():
    larger, smaller = (select(policy="uniform", size=size) for size in (15, 6))
    assert larger[:6].equals(smaller)
    assert larger["key"].to_list() == sorted(larger["key"])
    assert select(size=9)[:6].equals(select(size=6))
    labels = select(size=14)["label"].to_list()
    assert labels[:9] == ["cat", "dog", "eel"] * 3
    classes = Counter(labels)
    assert classes["eel"] == 3
    assert {classes["cat"], classes["dog"]} == {5, 6}
    assert select(policy="all", size=0)["image"].to_list() == POOL["image"].to_list()


@pytest.mark.parametrize("policy", RANDOM)
def test_a_minimum_of_every_class_is_always_in(policy):
    for seed in range(20):
        rows = select(policy=policy, size=4, seed=seed, minimum=2)
        assert Counter(rows["label"]) == {"cat": 2, "dog": 2, "eel": 2}
        larger = select(policy=policy, size=12, seed=seed, minimum=2)
        assert len(larger) == 12
        assert min(Counter(larger["label"]).values()) >= 2
    assert set(select(policy="uniform", size=4, minimum=2)["reason"]) == {"minimum"}
    assert select(policy=policy, size=0, minimum=2).is_empty()


@pytest.mark.parametrize("policy", EVERY)
def test_a_replay_set_is_as_large_as_asked_and_holds_no_image_twice_and_each_as_it_is(policy):
    rows = named(select(policy=policy, size=15, minimum=2))
    known = {row["image"]: row for row in POOL.iter_rows(named=True)}
    assert len({row["image"] for row in rows}) == len(rows) == (21 if policy == "all" else 15)
    for row in rows:
        assert {**known[row["image"]], **row} == {**row, "group": "", "split": "train"}
        assert row["reason"] in ("minimum", policy)
    for size in (0, 1, 21, 300):
        assert len(select(policy=policy, size=size)) == (21 if policy == "all" else min(size, 21))
    assert len(select(policy="uniform", size=1, minimum=99)) == len(POOL)
    assert select(POOL.clear(), policy=policy, minimum=5).is_empty()  # the first day


@pytest.mark.parametrize("policy", RANDOM)
def test_the_draw_is_fresh_each_day_and_for_each_seed_and_does_not_depend_on_row_order(policy):
    today = set(select(policy=policy, size=6)["image"])
    assert today == set(select(policy=policy, size=6)["image"])
    assert today != set(select(policy=policy, size=6, day="2025-07-02")["image"])
    assert today != set(select(policy=policy, size=6, seed=1)["image"])
    expected = select(policy=policy, minimum=1)
    for seed in range(5):
        turned = POOL.sample(fraction=1, shuffle=True, seed=seed)
        assert select(turned, policy=policy, minimum=1).equals(expected)


def test_the_stages_write_what_the_functions_say(project, capsys):
    changes = {"replay.size": 12, "weights.class_balance": 0.0, "weights.versions": 1}
    params_file.edit(project.params, changes)
    take_in(project, DAYS[0], {"cat": range(10), "dog": range(10, 20)})
    history = take_in(project, DAYS[1], {"cat": range(20, 30)})
    params = params_file.read(project.params)
    capsys.readouterr()
    weights.run(project, params)
    found = [VersionWeight(*row) for row in tables.read(project.weights, VersionWeight).rows()]
    assert found == [VersionWeight(DAYS[0], 1, 14, 1.0), VersionWeight(DAYS[1], 0, 7, 3.0)]
    assert capsys.readouterr().out == (
        "7 training images of today, weight 3; 14 of 1 earlier day, weight 1\n"
    )
    replay.run(project, params)
    rows = [Replayed(*row) for row in tables.read(project.replay, Replayed).rows()]
    assert Counter(row.label for row in rows) == {"cat": 6, "dog": 6}
    assert {(row.weight, row.reason) for row in rows} == {(1.0, "class_balanced")}
    old = set(history.split("train").filter(day=DAYS[0])["image"])
    assert {row.image for row in rows} <= old
    # Of ten images seven are trained on; six old ones of each class: 12 x 1 against 7 x 3.
    assert [PoolShare(*row) for row in tables.read(project.shares, PoolShare).rows()] == [
        PoolShare(DAYS[0], "cat", 6, 1.0, 6 / 33),
        PoolShare(DAYS[0], "dog", 6, 1.0, 6 / 33),
        PoolShare(DAYS[1], "cat", 7, 3.0, 21 / 33),
    ]
    assert capsys.readouterr().out == (
        "12 of 14 earlier images (class_balanced)\n"
        # 21/33 of the draws for 7 images of today, 12/33 for 14 older ones: 3.5 times.
        "an image of today is drawn 3.5 times as often as an average older one; today's images "
        "are 64% of the draws (7 of 19 images)\n"
    )


def test_a_first_day_has_no_recency_however_its_shares_round():
    assert metrics.recency(1 - 2**-53, today=3, old=0) is None
    assert metrics.recency(0.5, today=2, old=4) == 2.0


PLANS = (f"data/manifests/{DAYS[0]}.csv", f"data/manifests/{DAYS[1]}.csv")
PLANS += ("data/weights.csv", "data/replay.csv", "data/shares.csv")
CLASSES = {"cat": range(30), "dög": range(30, 50), "a,b": range(50, 57)}

STAGES = """
import os, sys
from pathlib import Path
umask, root = int(sys.argv[1], 8), Path(sys.argv[2])
os.umask(umask)
sys.stdout.reconfigure(errors="backslashreplace")  # as the command line does
from dayfold.project import params
from dayfold.project.layout import Project
from dayfold.stages import replay, snapshot, weights
project = Project.find(root)
found = params.read(project.params)
for stage in (snapshot, weights, replay):
    stage.run(project, found)
"""


def first_day(root, *, backwards=False):
    """A project with a first day behind it and the images of a second one."""
    project = make_project(root, replay__size=12, data__group=r"/(\d)\d*\.png$")
    (root / "dvc.yaml").touch()
    open_day(project, DAYS[0])
    for label, numbers in sorted(CLASSES.items(), reverse=backwards):
        place(project.images(DAYS[0]), label, sorted(numbers, reverse=backwards))
    run_stages(project, snapshot)
    open_day(project, DAYS[1])
    place(project.images(DAYS[1]), "cat", sorted(range(60, 75), reverse=backwards))
    return project


def plans(project):
    return [(project.root / name).read_bytes() for name in PLANS]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    project = first_day(tmp_path_factory.mktemp("expected") / "project")
    run_stages(project, snapshot, weights, replay)
    return plans(project)


@pytest.mark.parametrize(
    ("umask", "settings"),
    [
        (
            "077",
            "PYTHONHASHSEED=4711 TZ=Pacific/Kiritimati LC_ALL=tr_TR.UTF-8 POLARS_MAX_THREADS=1",
        ),
        ("002", "PYTHONHASHSEED=0 TZ=America/Adak LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0"),
    ],
)
def test_plans_do_not_depend_on_the_environment(tmp_path, expected, umask, settings):
    project = first_day(tmp_path / "elsewhere and lönger")
    subprocess.run(
        [sys.executable, "-c", STAGES, umask, str(project.root / "data")],
        env=os.environ | dict(setting.split("=") for setting in settings.split()),
        cwd=tmp_path,
        check=True,
    )
    assert plans(project) == expected


def test_plans_do_not_depend_on_the_order_of_files_nor_on_what_was_made_before(tmp_path, expected):
    project = first_day(tmp_path / "project", backwards=True)
    for _ in range(2):
        run_stages(project, snapshot, weights, replay)
        assert plans(project) == expected


def test_plans_have_the_bytes_that_they_had_when_this_test_was_written(tmp_path):
    # Of simulated images: the bytes of real ones depend on the encoder's version.
    parts = {f"data__split__{name}": FRACTIONS[name] for name in ("validation", "test")}
    weight = {"recent": 3.0, "base": 1.0, "versions": 6, "over": "history", "class_balance": 0.3}
    parts |= {f"weights__{name}": value for name, value in weight.items()}
    parts |= {"replay__policy": "class_balanced", "replay__size": 10, "seed": 0}
    project = make_project(tmp_path, **parts)
    params_file.edit(project.params, {"day": DAYS[1], "parent": DAYS[0]})
    simulate(
        project,
        [
            [(number, ("cat", "dög")[number % 3 == 0], f"p{number % 7}") for number in range(60)],
            [(number, "a,b", "") for number in range(60, 80)],
        ],
    )
    run_stages(project, weights, replay)
    assert [sha256(data)[:16] for data in plans(project)] == [
        "cdabbf0af23b25a0",
        "60d548163d82f3b9",
        "1bfa8f379f070aa1",
        "76c0afd37ea82faf",
        "1ed2db2c1b60049a",
    ]
