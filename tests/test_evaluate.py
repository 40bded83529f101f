"""Counts by bin, which are kept and on which no figure depends, and the flips that are listed."""

import os

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import DAYS, image, make_project
from dayfold.figures import counts, evidence, metrics
from dayfold.ledger import tables
from dayfold.ledger.tables import BINS, Evaluation, Flip, Prediction, schema
from dayfold.project import params
from dayfold.stages import evaluate

ONE, TWO = DAYS[:2]


def predictions(*rows):
    """Test images as (label, predicted, confidence), each of a path and day of its own."""
    return pl.DataFrame(
        [
            {
                "image": image(number),
                "path": f"data/images/{ONE}/{label}/{99 - number}.png",
                "day": ONE if number % 2 else TWO,
                "split": "test",
                "label": label,
                "predicted": predicted,
                "confidence": confidence,
            }
            for number, (label, predicted, confidence) in enumerate(rows)
        ]
    )


def test_a_bin_holds_its_lower_end_and_the_last_one_the_upper_end_too():
    for tenth in range(BINS):
        upper = 1.0 if tenth == BINS - 1 else (tenth + 1) / BINS - 1e-9
        for confidence in (tenth / BINS, tenth / BINS + 0.05, upper):
            asked = predictions(("a", "a", confidence))
            (row,) = evaluate.count_cells(asked, model=TWO, parent=None)
            assert row.bin == tenth


LABELS = st.sampled_from("abc")
ROWS = st.lists(st.tuples(LABELS, LABELS, st.floats(0, 1)), min_size=1, max_size=40)


@given(ROWS, st.lists(LABELS, min_size=40, max_size=40))
def test_counts_and_flips_are_of_the_same_images(rows, before):
    table = predictions(*rows)
    parent = dict(zip(table["image"], before, strict=False))
    counts = evaluate.count_cells(table, model=TWO, parent=parent)
    assert counts == sorted(counts)
    assert len({count[:5] for count in counts}) == len(counts)
    assert sum(count.images for count in counts) == len(rows)
    for count in counts:
        assert count.bin == min(int(count.confidence * BINS + 1e-9), BINS - 1)
    flips = evaluate.negative_flips(table, parent)
    found = metrics.flips(pl.DataFrame(counts, schema=schema(Evaluation), orient="row"))
    lost = [label == old != said for (label, said, _), old in zip(rows, before, strict=False)]
    won = [label == said != old for (label, said, _), old in zip(rows, before, strict=False)]
    assert found == (len(rows), sum(lost), sum(won))
    assert len(flips) == sum(lost)


def test_flips_are_listed_by_path_with_both_answers():
    table = predictions(("a", "b", 0.5), ("a", "a", 0.6), ("b", "c", 0.7), ("b", "a", 0.8))
    parent = dict(zip(table["image"], ["a", "a", "b", "c"], strict=True))
    folder = f"data/images/{ONE}"
    assert evaluate.negative_flips(table, parent) == [
        Flip(f"{folder}/a/99.png", "a", "a", "b", 0.5),
        Flip(f"{folder}/b/97.png", "b", "b", "c", 0.7),
    ]
    assert evaluate.negative_flips(table, None) == []
    held = table.with_columns(split=pl.lit("validation"))
    assert evaluate.negative_flips(held, parent) == []


@given(cohorts=st.lists(st.integers(1, 30), min_size=1, max_size=4), most=st.integers(1, 12))
def test_a_sample_is_the_smaller_part_of_a_larger_one_in_every_cohort(cohorts, most):
    held = pl.DataFrame(
        [
            (str(day // 2), ("validation", "test")[day % 2], f"{day}-{number}")
            for day, size in enumerate(cohorts)
            for number in range(size)
        ],
        schema=["day", "split", "image"],
        orient="row",
    )
    few, more = (evidence.sample(held, size) for size in (most, most + 1))
    sizes = few.group_by("day", "split", maintain_order=True).len()["len"].to_list()
    assert sizes == [min(size, most) for size in cohorts]
    assert set(few["image"]) <= set(more["image"])
    assert few.equals(held.filter(pl.col("image").is_in(few["image"].implode())))
    # Whoever is taken out, the others stay in.
    gone = few["image"][0]
    assert set(few["image"]) - {gone} <= set(
        evidence.sample(held.filter(pl.col("image") != gone), most)["image"]
    )
    assert evidence.sample(held, None) is held


@pytest.mark.slow
def test_a_sample_that_grows_asks_yesterday_s_model_about_what_is_new_in_it(copy, monkeypatch):
    monkeypatch.chdir(copy.root)
    read = params.read(copy.params)
    limited = params.with_changes(read, {"evaluate.max_per_cohort": 4})
    whole = tables.read(copy.predictions, Prediction)
    flips = copy.plot("flips").read_bytes()
    evaluate.run(copy, limited)
    few = tables.read(copy.predictions, Prediction)
    assert set(few.group_by("day", "split").len()["len"]) == {4}
    # As if yesterday's evening had been so limited, and today no more.
    known = tables.read(copy.parent_predictions, Prediction)
    known = known.join(few, on="image", how="semi")
    tables.write(copy.parent_predictions, Prediction, known.iter_rows())
    evaluate.run(copy, read)
    said = tables.read(copy.predictions, Prediction)
    assert said.drop("confidence").equals(whole.drop("confidence"))
    assert copy.plot("flips").read_bytes() == flips


ARRIVED = ("cat", "dog", "eel")


def write_counts(project, day, right=3):
    """What a day's model said: `right` of 4 a class and cohort; and yesterday's of its images."""
    at = DAYS.index(day)
    rows = []
    for cohort in DAYS[: at + 1]:
        for label in ARRIVED[: at + 1]:
            rows += [(day, cohort, label, label, 9, right, 0.9, None)]
            rows += [(day, cohort, label, "cat" if label == "dog" else "dog", 9, 1, 0.9, None)]
    before = DAYS[at - 1] if at else "origin"
    tables.write(
        project.evaluation(day), Evaluation, [*rows, (before, day, "cat", "cat", 9, 2, 0.9, None)]
    )


def afresh(project, until):
    days = tables.evaluated(project, until)
    return counts.counted(tables.evaluations(project, days), days)


def same(found, expected):
    assert found[:2] == expected[:2]
    for mine, theirs in zip(found[2:], expected[2:], strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.fixture
def project(tmp_path):
    project = make_project(tmp_path)
    for day in DAYS[:3]:
        write_counts(project, day)
    return project


def test_only_files_that_came_since_and_today_s_are_read(project, monkeypatch):
    same(counts.read(project, DAYS[1]), afresh(project, DAYS[1]))
    read = []
    real = tables.read
    monkeypatch.setattr(
        tables, "read", lambda path, kind: read.append(path.stem) or real(path, kind)
    )
    found = counts.read(project, DAYS[2])
    assert read == list(DAYS[1:3])
    same(found, afresh(project, DAYS[2]))
    read.clear()
    found = counts.read(project, DAYS[1])
    assert read == [DAYS[1]]
    same(found, afresh(project, DAYS[1]))


def test_a_file_that_was_changed_removed_or_came_in_between_is_counted_anew(project):
    counts.read(project, DAYS[2])
    write_counts(project, DAYS[0], right=2)
    same(counts.read(project, DAYS[2]), afresh(project, DAYS[2]))
    project.evaluation(DAYS[1]).unlink()
    same(counts.read(project, DAYS[2]), afresh(project, DAYS[2]))
    write_counts(project, DAYS[1])
    same(counts.read(project, DAYS[2]), afresh(project, DAYS[2]))
    # Today's though its size and time are the same.
    path = project.evaluation(DAYS[2])
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b",9,3,", b",9,1,"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    same(counts.read(project, DAYS[2]), afresh(project, DAYS[2]))


def test_kept_counts_that_are_damaged_are_made_again(project):
    counts.read(project, DAYS[2])
    whole = project.counts.read_bytes()
    for damaged in (b"", b"no archive", whole[: len(whole) // 2]):
        project.counts.write_bytes(damaged)
        same(counts.read(project, DAYS[2]), afresh(project, DAYS[2]))
        assert project.counts.read_bytes() == whole
