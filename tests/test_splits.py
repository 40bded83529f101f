"""A split is given once, for ever, by names alone, and meets its fractions day by day."""

from collections import Counter, defaultdict
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import DAYS, FRACTIONS, image, make_project, simulate, write_day
from dayfold.errors import IntakeError
from dayfold.ledger import manifest, splits
from dayfold.ledger.manifest import SPLITS, Row
from dayfold.project.layout import ORIGIN
from dayfold.stages import snapshot

CLASSES = ("cat", "dog", "eel")
FILES = settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow], deadline=None)
PART = st.integers(1, 20)


@st.composite
def arrivals(draw, group):
    """Days of (number, label, group) images, every number once."""
    numbers = iter(range(10_000))
    one = st.tuples(st.sampled_from(CLASSES), group)
    days = draw(st.lists(st.lists(one, min_size=1, max_size=25), min_size=1, max_size=5))
    return [[(next(numbers), label, group) for label, group in day] for day in days]


@st.composite
def fractions(draw):
    train, validation, test = draw(PART), draw(PART), draw(PART)
    total = train + validation + test
    return {"train": train / total, "validation": validation / total, "test": test / total}


PATIENTS = st.integers(0, 12).map("patient {}".format)
MIXED = PATIENTS | st.just("")


def history_of(days, parts=FRACTIONS):
    with TemporaryDirectory() as folder:
        return simulate(make_project(Path(folder)), days, parts)


@FILES
@given(arrivals(MIXED), fractions())
def test_an_image_and_a_group_keep_their_split_for_ever(days, parts):
    given_splits = {}
    for history in history_of(days, parts):
        for row in history.images.iter_rows(named=True):
            for unit in filter(None, (row["image"], row["group"])):
                assert given_splits.setdefault(unit, row["split"]) == row["split"]
                assert row["split"] in SPLITS


@FILES
@given(arrivals(PATIENTS))
def test_no_group_is_on_two_sides(days):
    sides = defaultdict(set)
    for row in history_of(days)[-1].images.iter_rows(named=True):
        sides[row["group"]].add(row["split"])
    assert {len(found) for found in sides.values()} == {1}


@FILES
@given(arrivals(st.just("")), fractions())
def test_fractions_are_met_within_one_image_in_every_class_after_every_day(days, parts):
    for history in history_of(days, parts):
        counts = Counter(history.images.select("label", "split").iter_rows())
        for label in CLASSES:
            total = sum(counts[label, split] for split in SPLITS)
            for split in SPLITS:
                assert abs(counts[label, split] - parts[split] * total) < 1


@FILES
@given(arrivals(MIXED))
def test_fractions_are_met_within_one_group_in_every_class_after_every_day(days):
    counted_in = {}
    for history, arrived in zip(history_of(days), days, strict=True):
        # A group counts in the class of its first image, by day and id.
        for number, label, group in sorted(arrived, key=lambda one: image(one[0])):
            counted_in.setdefault(group or image(number), label)
        split_of = dict(history.images.select("image", "split").iter_rows())
        split_of |= dict(history.groups.iter_rows())
        counts = Counter((label, split_of[unit]) for unit, label in counted_in.items())
        for label in CLASSES:
            total = sum(counts[label, split] for split in SPLITS)
            for split in SPLITS:
                assert abs(counts[label, split] - FRACTIONS[split] * total) < 1


@FILES
@given(arrivals(MIXED), st.randoms(use_true_random=False))
def test_splits_do_not_depend_on_the_order_of_the_files(days, random):
    shuffled = [random.sample(day, len(day)) for day in days]
    assert history_of(shuffled)[-1].sha256 == history_of(days)[-1].sha256


@FILES
@given(arrivals(st.just("")))
def test_the_first_image_of_a_class_is_trained_on(days):
    for history in history_of(days):
        trained = set(history.split("train")["label"])
        assert trained == set(history.images["label"])


@pytest.mark.parametrize("parts", [(0.2, 0.3, 0.5), (0.05, 0.05, 0.9)])
def test_the_first_of_a_class_is_trained_on_whatever_the_fractions(parts):
    given_splits = splits.assign(
        {"a": "cat"}, before={}, fractions=dict(zip(SPLITS, parts, strict=True))
    )
    assert given_splits == {"a": "train"}


def test_ten_images_meet_the_default_fractions_exactly(project):
    (history,) = simulate(project, [[(number, "cat", "") for number in range(10)]])
    assert Counter(history.images["split"]) == {"train": 7, "validation": 1, "test": 2}


def test_one_image_a_day_meets_the_fractions_as_well_as_ten_at_once(project):
    histories = simulate(project, [[(number, "cat", "")] for number in range(10)])
    assert Counter(histories[-1].images["split"]) == {"train": 7, "validation": 1, "test": 2}


def test_other_fractions_leave_earlier_splits_alone(project):
    first = [(number, "cat", "") for number in range(30)]
    (before,) = simulate(project, [first])
    later = [(number, "cat", "") for number in range(30, 60)]
    parts = {"train": 0.1, "validation": 0.1, "test": 0.8}
    (after,) = simulate(project, [later], parts, first=1)
    assert manifest.added(after, DAYS[0]).equals(before.images)
    # 21, 3 and 6 of the first 30, and the next 30 make up for what 60 lack of 6, 6 and 48.
    assert Counter(manifest.added(after, DAYS[1])["split"]) == {"test": 30}


def test_fractions_of_zero_give_nothing(project):
    parts = {"train": 1.0, "validation": 0.0, "test": 0.0}
    (history,) = simulate(project, [[(number, "cat", "") for number in range(20)]], parts)
    assert set(history.images["split"]) == {"train"}


def test_a_returning_group_keeps_its_split_in_another_class(project):
    first = [(number, "cat", f"patient {number}") for number in range(10)]
    again = [(number + 10, "dog", f"patient {number}") for number in range(10)]
    _, history = simulate(project, [first, again])
    sides = history.images.group_by("group").agg(split="split", distinct="split")
    assert sides.explode("split").unique().height == 10
    assert Counter(history.split("test")["label"]) == {"cat": 2, "dog": 2}


def test_a_group_whose_images_were_all_withdrawn_still_keeps_its_split(project):
    (before,) = simulate(project, [[(number, "cat", f"p{number}") for number in range(10)]])
    held = before.split("test").row(0, named=True)
    gone = Row("withdraw", held["image"], held["path"], "", held["group"], held["split"])
    tuples = [(image(99), "data/images/x/cat/99.png", "cat", held["group"])]
    rows = snapshot.rows_of(tuples, earlier=manifest.history(project, DAYS[0]), fractions=FRACTIONS)
    assert [row.split for row in rows] == ["test"]
    after = write_day(project, DAYS[1], DAYS[0], [gone])
    rows = snapshot.rows_of(tuples, earlier=after, fractions=FRACTIONS)
    assert [row.split for row in rows] == ["test"]


def by_study(patient):
    """Another way of grouping: two patients to a study."""
    return f"study {patient // 2}"


GROUPINGS = (str, by_study, lambda patient: "")


def corrected(known, random):
    """A few images of a history with another label, or withdrawn."""
    rows = known.images.rows(named=True)
    for row in random.sample(rows, min(len(rows), random.randrange(4))):
        label = random.choice(["", *CLASSES])
        action = "relabel" if label else "withdraw"
        yield Row(action, row["image"], row["path"], label, row["group"], row["split"])


def generated(project, random):
    """2 to 5 days: patients return, the fractions and the way of grouping change, labels too."""
    numbers, known, parent = iter(range(1000)), manifest.history(project, ORIGIN), ORIGIN
    for day in DAYS[: random.randrange(2, 6)]:
        shares = [random.randrange(21) for _ in SPLITS]
        total = sum(shares) or 1
        parts = dict(zip(SPLITS, (share / total for share in shares), strict=True))
        grouping = random.choice(GROUPINGS)
        arrived = []
        for _ in range(random.randrange(1, 16)):
            number, label = next(numbers), random.choice(CLASSES)
            path = f"data/images/{day}/{label}/{number}.png"
            arrived.append((image(number), path, label, grouping(random.randrange(9))))
        rows = snapshot.rows_of(arrived, earlier=known, fractions=parts)
        known = write_day(project, day, parent, [*rows, *corrected(known, random)])
        parent = day
        yield known


@pytest.mark.slow
def test_in_a_thousand_histories_no_group_and_no_image_is_ever_on_two_sides(project):
    met = Counter()
    for seed in range(1000):
        sides, groups = {}, {}
        for history in generated(project, Random(seed)):  # noqa: S311
            for row in history.images.iter_rows(named=True):
                for unit in filter(None, (row["image"], row["group"])):
                    assert sides.setdefault(unit, row["split"]) == row["split"]
                # Another way of grouping does not reach back.
                assert groups.setdefault(row["image"], row["group"]) == row["group"]
            met.update(history.corrections["action"])
        met["days"] += len(history.days)
        met["groups"] += history.images["group"].n_unique()
    assert min(met.values()) > 1000, met


@pytest.mark.parametrize(
    ("path", "expression", "group"),
    [
        ("data/images/2025-06-02/cat/p07_1.png", r"(p\d+)_", "p07"),
        ("data/images/2025-06-02/cat/p07_1.png", r"/([^/]+)_\d+\.png$", "p07"),
        ("data/images/2025-06-02/cat/p07_1.png", "", ""),
    ],
)
def test_a_group_is_what_the_expression_finds(path, expression, group):
    assert splits.group_of(path, expression) == group


@pytest.mark.parametrize("expression", [r"(q\d+)", r"p07(x?)"])
def test_a_group_is_never_guessed(expression):
    with pytest.raises(IntakeError, match=r"cat/p07\.png: no group in it by data\.group"):
        splits.group_of("cat/p07.png", expression)
