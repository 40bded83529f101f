"""evaluate's pure parts: counts by bin, and the flips that are listed."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import DAYS, image
from dayfold.errors import LedgerError
from dayfold.figures import metrics
from dayfold.ledger.tables import BINS, Evaluation, Flip, schema
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


@pytest.mark.parametrize("tenth", range(BINS))
def test_a_bin_holds_its_lower_end_and_the_last_one_the_upper_end_too(tenth):
    upper = 1.0 if tenth == BINS - 1 else (tenth + 1) / BINS - 1e-9
    for confidence in (tenth / BINS, tenth / BINS + 0.05, upper):
        (row,) = evaluate.counted(predictions(("a", "a", confidence)), model=TWO, parent=None)
        assert row.bin == tenth


LABELS = st.sampled_from("abc")
ROWS = st.lists(st.tuples(LABELS, LABELS, st.floats(0, 1)), min_size=1, max_size=40)


@given(ROWS, st.lists(LABELS, min_size=40, max_size=40))
def test_counts_and_flips_are_of_the_same_images(rows, before):
    table = predictions(*rows)
    parent = dict(zip(table["image"], before, strict=False))
    counts = evaluate.counted(table, model=TWO, parent=parent)
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


def test_an_image_that_yesterday_s_model_was_not_asked_about_is_told():
    with pytest.raises(LedgerError, match="lack 1 of 1 test images"):
        evaluate.counted(predictions(("a", "a", 0.5)), model=TWO, parent={})
