"""A split is given once, for ever, by names alone, and meets its fractions day by day; a clinic."""

import re
from collections import Counter, defaultdict
from itertools import count
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import (
    DAYS,
    FRACTIONS,
    benchmark,
    image,
    make_project,
    open_day,
    place,
    run_stages,
    simulate,
    write_day,
)
from dayfold.cycle import sealing
from dayfold.errors import IntakeError
from dayfold.ledger import grouping, manifest
from dayfold.ledger.manifest import SPLITS, Row
from dayfold.project.files import json_bytes, write_bytes
from dayfold.project.layout import ORIGIN
from dayfold.stages import snapshot

CLINICS = benchmark("clinics")
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


MIXED = st.integers(0, 12).map("patient {}".format) | st.just("")


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
@given(arrivals(st.just("")), fractions())
def test_fractions_are_met_within_one_image_and_the_first_of_a_class_is_trained_on(days, parts):
    for history in history_of(days, parts):
        counts = Counter(history.images.select("label", "split").iter_rows())
        for label in history.images["label"].unique():
            total = sum(counts[label, split] for split in SPLITS)
            assert counts[label, "train"]
            for split in SPLITS:
                assert abs(counts[label, split] - parts[split] * total) < 1


@FILES
@given(arrivals(MIXED), st.randoms(use_true_random=False))
def test_splits_do_not_depend_on_the_order_of_the_files(days, random):
    shuffled = [random.sample(day, len(day)) for day in days]
    assert history_of(shuffled)[-1].sha256 == history_of(days)[-1].sha256


@pytest.mark.parametrize("days", [1, 10])
def test_ten_images_meet_the_default_fractions_exactly_whenever_they_come(project, days):
    numbers = range(10)
    arrivals = [[(n, "cat", "") for n in numbers if n % days == day] for day in range(days)]
    *_, history = simulate(project, arrivals)
    assert Counter(history.images["split"]) == {"train": 7, "validation": 1, "test": 2}


def test_groups_count_by_their_images_in_all_their_classes(tmp_path):
    # 40 images: one patient has 20, five have 4 each; 28, 4 and 8 are aimed at.
    sizes = [20, 4, 4, 4, 4, 4]
    owners = [f"p{place}" for place, size in enumerate(sizes) for _ in range(size)]
    one, other = (make_project(tmp_path / name) for name in ("one", "other"))
    (history,) = simulate(one, [[(n, "cat", owner) for n, owner in enumerate(owners)]])
    assert Counter(history.images["split"]) == {"train": 28, "validation": 4, "test": 8}
    # Ten patients with three images of a cat and one of a dog each: 7, 1 and 2 of them.
    labels = ("cat", "cat", "cat", "dog")
    (history,) = simulate(other, [[(n, labels[n % 4], f"p{n // 4}") for n in range(40)]])
    assert Counter(history.images.select("label", "split").iter_rows()) == {
        (label, split): times * patients
        for label, times in (("cat", 3), ("dog", 1))
        for split, patients in (("train", 7), ("validation", 1), ("test", 2))
    }


@pytest.mark.parametrize(
    ("groups", "has"),
    [(1, {"train"}), (3, {"train", "test"}), (6, set(SPLITS))],
)
@pytest.mark.parametrize("sizes", [(1,), (30, 1), (1, 2, 30)])
def test_a_new_class_has_patients_in_the_splits_on_the_day_it_comes(project, groups, has, sizes):
    """Beside a common class, and whatever the sizes of its patients."""
    owners = [f"c{n // 5}" for n in range(100)]
    old = [(n, "cat", owner) for n, owner in enumerate(owners)]
    mine = [f"e{place}" for place in range(groups) for _ in range(sizes[place % len(sizes)])]
    new = [(1000 + n, "eel", owner) for n, owner in enumerate(mine)]
    new += [(2000 + n, "cat", owner.replace("c", "d")) for n, owner in enumerate(owners)]
    _, after = simulate(project, [old, new])
    assert set(after.images.filter(label="eel")["split"]) >= has


def test_a_day_is_split_again_as_it_was_and_what_came_before_stays(project):
    # Patients return, also in other classes; the manifest of a day is the same, made twice.
    first = [(n, CLASSES[n % 2], f"p{n // 3}") for n in range(60)]
    second = [(100 + n, CLASSES[n % 3], f"p{n // 2}") for n in range(80)]
    before, after = simulate(project, [first, second])
    assert manifest.added(after, DAYS[0]).equals(before.images)
    assert simulate(project, [second], first=1)[0].sha256 == after.sha256
    # With other fractions too.
    (before,) = simulate(project, [[(number, "cat", "") for number in range(30)]])
    later = [(number, "cat", "") for number in range(30, 60)]
    parts = {"train": 0.1, "validation": 0.1, "test": 0.8}
    (after,) = simulate(project, [later], parts, first=1)
    assert manifest.added(after, DAYS[0]).equals(before.images)
    # 21, 3 and 6 of the first 30, and the next 30 make up for what 60 lack of 6, 6 and 48.
    assert Counter(manifest.added(after, DAYS[1])["split"]) == {"test": 30}


@pytest.mark.parametrize("seed", range(8))
def test_simulated_clinics_keep_their_promise(seed):
    """See benchmarks/clinics.py, which does a thousand, of all sizes."""
    off, far, missing = CLINICS.simulate(seed, most_images=2500)
    assert (far, missing) == ([], [])
    assert max(off["whole"]) <= 1


def rows_of(images, earlier, parts=FRACTIONS, expression=""):
    units = grouping.units(images, earlier=earlier, expression=expression)
    return snapshot.rows_of(images, units=units, earlier=earlier, fractions=parts)


def test_a_group_whose_images_were_all_withdrawn_still_keeps_its_split(project):
    (before,) = simulate(project, [[(number, "cat", f"p{number}") for number in range(10)]])
    held = before.split("test").row(0, named=True)
    gone = Row("withdraw", held["image"], held["path"], "", held["group"], held["split"])
    tuples = [(image(99), "data/images/x/cat/99.png", "cat", held["group"])]
    rows = rows_of(tuples, manifest.history(project, DAYS[0]))
    assert [row.split for row in rows] == ["test"]
    after = write_day(project, DAYS[1], DAYS[0], [gone])
    rows = rows_of(tuples, after)
    assert [row.split for row in rows] == ["test"]


def corrected(known, random):
    """A few images of a history with another label, or withdrawn."""
    rows = known.images.rows(named=True)
    for row in random.sample(rows, min(len(rows), random.randrange(4))):
        label = random.choice(["", *CLASSES])
        action = "relabel" if label else "withdraw"
        yield Row(action, row["image"], row["path"], label, row["group"], row["split"])


PATIENT, SAME, STUDY, NONE, COARSE = r"(p\d)_", r"/p(\d)_", r"(p\d_s\d)_", "", r"_(s\d)_"


def arrival(number, day, random, expression, told):
    """An image of a patient and study, its group read off its path or, as often as said, told."""
    label, patient = random.choice(CLASSES), random.randrange(9)
    path = f"data/images/{day}/{label}/p{patient}_s{random.randrange(3)}_{number}.png"
    group = grouping.group_of(path, expression)
    return (image(number), path, label, f"told {patient}" if random.random() < told else group)


def generated(project, random, expressions, told=0.1):
    """2 to 5 days: patients return, the fractions and the expression change, labels too."""
    numbers, known, parent = count(), manifest.history(project, ORIGIN), ORIGIN
    for day in DAYS[: random.randrange(2, 6)]:
        shares = [random.randrange(21) for _ in SPLITS]
        total = sum(shares) or 1
        parts = dict(zip(SPLITS, (share / total for share in shares), strict=True))
        expression = random.choice(expressions)
        arrived = [
            arrival(next(numbers), day, random, expression, told)
            for _ in range(random.randrange(1, 16))
        ]
        rows = rows_of(arrived, known, parts, expression)
        rows += corrected(known, random)
        known = write_day(project, day, parent, rows, expression)
        parent = day
        yield known


def kin_of(names, known):
    """The images of `known` that have a name in common with these, or with others that have."""
    names, found = set(names), {}
    while more := {one: its for one, its in known.items() if one not in found and its & names}:
        found |= more
        names |= set().union(*more.values())
    return found


@pytest.mark.slow
def test_in_histories_of_all_kinds_what_belongs_together_stays_together(project):
    """Whatever the days' expressions: as a search through all images ever finds, day by day.

    Every second history has only expressions that tell patients apart, and no told groups: there
    no patient who was met under or after one that names patients is ever on two sides.
    """
    met = Counter()
    for seed in range(120):
        strict, random = seed % 2 == 0, Random(seed)  # noqa: S311
        expressions = (PATIENT, SAME, STUDY, NONE, *[COARSE] * (not strict))
        sides, ever, of_patient, named = {}, {}, {}, set()
        for history in generated(project, random, expressions, told=0.0 if strict else 0.1):
            rows = history.images.rows(named=True)
            for row in rows:
                # The group that an image was given stays, and so does its split.
                assert ever.setdefault(row["image"], (row["path"], row["group"]))[1] == row["group"]
                assert sides.get(row["image"], row["split"]) == row["split"]
            changed = len(history.expressions) > 1
            applied = [one for one in history.expressions if one and changed]
            names = {
                one: {group, *(re.search(regex, path)[1] for regex in applied)} - {""}
                for one, (path, group) in ever.items()
            }
            split_of = {row["image"]: row["split"] for row in rows}
            today = set(manifest.added(history, history.days[-1])["image"])
            for one in today:
                kin = kin_of(names[one], names).keys() | {one}
                earlier = {sides[other] for other in kin if other in sides}
                met["joined"] += bool(earlier) and changed
                met["torn"] += len(earlier) > 1
                # Where the model has learnt from any of them, nothing more is held out.
                expected = min(earlier, key=SPLITS.index) if earlier else split_of[one]
                assert {split_of[other] for other in kin & today} == {expected}
            sides |= split_of
            for row in rows:
                patient = re.search(PATIENT, row["path"])[1]
                if patient not in of_patient and {PATIENT, SAME} & set(history.expressions):
                    named.add(patient)
                of_patient.setdefault(patient, set()).add(row["split"])
            met.update(history.corrections["action"])
        assert not strict or all(len(of_patient[patient]) == 1 for patient in named)
        met["named"] += strict * len(named)
        met["days"] += len(history.days)
    assert min(met.values()) > 100, met


def test_no_image_is_measured_on_whose_patient_was_learnt_from_before_the_expression_came(project):
    # Ten images one by one, 7 of them for training; then it is told that they are two patients.
    first = [
        (image(n), f"data/images/{DAYS[0]}/cat/p{n % 2}_s0_{n}.png", "cat", "") for n in range(10)
    ]
    known = write_day(project, DAYS[0], ORIGIN, rows_of(first, manifest.history(project, ORIGIN)))
    assert set(known.images["split"]) == set(SPLITS)
    new = [(image(n), f"data/images/{DAYS[1]}/cat/p0_s0_{n}.png", "cat", "p0") for n in (90, 91)]
    new += [(image(n), f"data/images/{DAYS[1]}/cat/p9_s0_{n}.png", "cat", "p9") for n in (92, 93)]
    units = grouping.units(new, earlier=known, expression=PATIENT)
    assert units.in_several_splits() == ["p0"]
    mine = known.images.filter(pl.col("path").str.contains("/p0_"))
    assert units.live["p0"] == Counter(mine["split"])
    rows = rows_of(new, known, expression=PATIENT)
    assert [row.split for row in rows] == ["train"] * 2 + [rows[2].split] * 2


def test_a_group_is_what_the_expression_finds_and_never_guessed():
    path = "data/images/2025-06-02/cat/p07_1.png"
    for expression in (r"(p\d+)_", r"/([^/]+)_\d+\.png$"):
        assert grouping.group_of(path, expression) == "p07"
    assert grouping.group_of(path, "") == ""
    for expression in (r"(q\d+)", r"p07(x?)"):
        with pytest.raises(IntakeError, match=r"p07_1\.png: no patient id \(data\.group does not"):
            grouping.group_of(path, expression)


COMMON = ("AC", "BPD", "FL")


@pytest.fixture
def clinic(tmp_path):
    return make_project(tmp_path / "clinic", data__group=r"/(P\d+)_")


def day_of(clinic, number, classes):
    """Take in a day: 12 patients with five images each, of the classes that are named for them."""
    open_day(clinic, DAYS[number])
    for patient, labels in enumerate(classes, start=12 * number):
        for turn in range(5):
            label = labels[turn % len(labels)]
            place(clinic.images(DAYS[number]), label, [5 * patient + turn], f"P{patient:03}_")
    run_stages(clinic, snapshot)
    return manifest.history(clinic, DAYS[number])


def patients_of(history, label):
    """Class → split → patients."""
    found = defaultdict(set)
    for row in history.images.filter(label=label).iter_rows(named=True):
        found[row["split"]].add(row["group"])
    return {split: len(found[split]) for split in SPLITS}


@pytest.mark.parametrize("several", [False, True])
def test_a_clinic_s_days_are_split_as_asked_and_its_new_class_has_a_test_patient(
    clinic, capsys, several
):
    common = [(COMMON[place % 3], COMMON[(place + 1) % 3])[: 1 + several] for place in range(12)]
    for number in range(2):
        history = day_of(clinic, number, common)
        assert patients_of(history, "AC")["test"] >= 1
    history = day_of(clinic, 2, [*common[:8], *[("CRL", "AC")[: 1 + several]] * 4])
    counts = dict(history.images.group_by("split").len().iter_rows())
    for split, aim in zip(SPLITS, (126, 18, 36), strict=True):
        assert abs(counts[split] - aim) <= 5
    new = patients_of(history, "CRL")
    assert new["train"] >= 1
    assert new["test"] >= 1
    said = capsys.readouterr().out
    assert len(re.findall(r"60 images \(\d+ train of \d+ patients?, \d+ validation of ", said)) == 3
    line = said.splitlines()[-1]
    assert line.startswith("warning: too few test patients to judge AC (")
    assert f"CRL ({new['test']})" in line
    assert line.endswith("21 are needed; add more such patients, or judge on a later day")


def test_a_new_class_of_one_patient_is_learnt_and_it_is_said_that_it_cannot_be_judged(
    clinic, capsys
):
    common = [(COMMON[place % 3],) for place in range(12)]
    for number in range(2):
        day_of(clinic, number, common)
    capsys.readouterr()
    history = day_of(clinic, 2, [*common[:11], ("CRL",)])
    assert patients_of(history, "CRL") == {"train": 1, "validation": 0, "test": 0}
    said = capsys.readouterr().out.splitlines()
    assert (
        "warning: no test patient of CRL: not judged; add more such patients, or judge on "
        "a later day"
    ) in said
    assert any(line.startswith("warning: no validation patient of CRL: ") for line in said)


def test_the_headline_of_a_day_s_commit_says_that_it_rests_on_too_few(clinic):
    """Of forgetting the earlier patients count."""
    figures = {
        "images": {"today": 60},
        "average_accuracy": 0.6,
        "forgetting": 0.01,
        "evidence": {"all": 21, "earlier": 3},
    }
    write_bytes(clinic.figures, json_bytes(figures))
    assert sealing._subject(clinic, DAYS[1]) == (
        f"day {DAYS[1]}: 60 images, ACC 0.600, forgetting 0.010 (too few to judge)"
    )


def test_many_classes_without_a_test_patient_fold_at_five(clinic, capsys):
    day_of(clinic, 0, [(f"class {place:02}",) for place in range(12)])
    (line,) = [one for one in capsys.readouterr().out.splitlines() if "no test patient" in one]
    names = ", ".join(f"class {place:02}" for place in range(5))
    assert line.startswith(f"warning: no test patient of {names}, and 7 more: not judged")
