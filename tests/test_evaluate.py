"""evaluate's pure parts: counts by bin, and the flips that are listed."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import DAYS, image
from dayfold.figures import evidence, metrics
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
            (row,) = evaluate.count_cells(
                predictions(("a", "a", confidence)), model=TWO, parent=None
            )
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
    limited = params.changed(read, {"evaluate.max_per_cohort": 4})
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
