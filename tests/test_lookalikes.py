"""Near duplicates are found: the same picture in other bytes, and no other."""

import numpy as np
import polars as pl
import pytest
from PIL import Image

from builders import DAYS, encoded, open_day, run_stages
from dayfold.errors import LedgerError
from dayfold.ledger import looks, manifest, tables
from dayfold.ledger.decode import decode
from dayfold.ledger.intake import delivery as deliveries
from dayfold.ledger.intake.delivery import Delivery
from dayfold.ledger.intake.finding import walk
from dayfold.ledger.intake.workers import look
from dayfold.ledger.tables import NearDuplicate
from dayfold.stages import snapshot


def picture(seed, side=64):
    """A smooth picture of its own."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).convert("RGB")


def bits(one, other):
    words = [int(look(image), 16) for image in (one, other)]
    return (words[0] ^ words[1]).bit_count()


def test_a_look_is_one_bit_a_neighbour_that_is_brighter():
    # Brighter to the right everywhere, and never downwards.
    ramp = Image.fromarray(np.tile(np.arange(0, 252, 28, dtype=np.uint8), (9, 1)))
    assert look(ramp.convert("RGB")) == "f" * 16 + "0" * 16
    assert look(ramp.transpose(Image.Transpose.ROTATE_270)) == "0" * 16 + "f" * 16


@pytest.mark.parametrize("seed", range(5))
def test_scaled_recompressed_and_darkened_pictures_are_near(seed):
    image = picture(seed, 256)
    for other in (
        image.resize((128, 128)),
        image.resize((179, 179)),
        decode(encoded(image, "JPEG", quality=50)),
        image.point(lambda value: value * 0.8),
    ):
        assert bits(image, other) <= looks.NEAR_BITS


def nearest(some, kinds):
    return looks.nearest_of_another_kind(some, kinds, some, kinds)


def test_other_pictures_are_far_and_plain_ones_near_to_none():
    assert nearest([look(picture(seed)) for seed in range(60)], range(60)) == []
    assert look(Image.new("RGB", (64, 64), (90, 90, 90))) == ""
    assert nearest(["", ""], [0, 1]) == []


def test_the_nearest_of_another_kind_is_named_however_many_are_compared_at_once(monkeypatch):
    zero, one, four, five = (f"{number:032x}" for number in (0, 1, 15, 31))
    find = looks.nearest_of_another_kind
    assert find([zero], [5], [zero, four, one, one], [5, 6, 7, 8]) == [(0, 2, 1)]
    assert find([zero], [5], [zero, five], [5, 6]) == []
    draw = np.random.default_rng(0)
    some = [f"{number:032x}" for number in draw.integers(0, 2**14, 300)]
    kinds = draw.integers(0, 3, 300).tolist()
    at_once = nearest(some, kinds)
    assert at_once
    monkeypatch.setattr(looks, "_AT_ONCE", 700)
    assert nearest(some, kinds) == at_once


def deliver(folder, label, seeds, form="PNG"):
    (folder / label).mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        path = folder / label / f"{seed}.{form.lower()}"
        path.write_bytes(encoded(picture(seed), form))


def test_snapshot_lists_those_across_splits_and_classes_and_no_others(project, capsys):
    open_day(project, DAYS[0])
    deliver(project.images(DAYS[0]), "cat", range(20))
    run_stages(project, snapshot)
    assert project.plot("near_duplicates").read_text().count("\n") == 1
    history = manifest.history(project, DAYS[0])
    assert set(looks.read(project, [DAYS[0]])["image"]) == set(history.images["image"])
    # The same pictures as JPEG: some of them fall on the other side, one is another class.
    open_day(project, DAYS[1])
    deliver(project.images(DAYS[1]), "cat", range(19), "JPEG")
    deliver(project.images(DAYS[1]), "dog", [19], "JPEG")
    capsys.readouterr()
    run_stages(project, snapshot)
    alike = tables.read(project.plot("near_duplicates"), NearDuplicate)
    split_of = dict(history.images.select("path", "split").iter_rows())
    today = manifest.added(manifest.history(project, DAYS[1]), DAYS[1])
    expected = []
    for path, label, split in today.select("path", "label", "split").iter_rows():
        other = path.replace(DAYS[1], DAYS[0]).replace("dog", "cat").replace("jpeg", "png")
        if split_of[other] != split or label == "dog":
            expected.append((path, other))
    assert len(expected) > 1
    found = [(row["path"], row["other_path"]) for row in alike.iter_rows(named=True)]
    assert found == sorted(expected)
    said = capsys.readouterr().out
    assert f"{len(expected)} near duplicates across splits or classes (" in said
    assert f"warning: {expected[0][0]} (cat, " in said


def test_add_warns_of_another_class_in_the_history_and_in_the_delivery(project, tmp_path):
    open_day(project, DAYS[0])
    deliver(project.images(DAYS[0]), "cat", [1])
    run_stages(project, snapshot)
    history = manifest.history(project, DAYS[0])
    deliver(tmp_path / "new", "dog", [1, 2], "JPEG")
    deliver(tmp_path / "new", "bird", [2])
    deliver(tmp_path / "new", "cat", [1], "BMP")
    delivery = Delivery()
    found = walk(tmp_path / "new", delivery)
    deliveries.inspect(found, delivery, history)
    earlier = looks.read(project, history.days)
    deliveries.warn_of_lookalikes(delivery, history, earlier)
    said = sorted(map(str, delivery.warned))
    assert [line.partition(" (")[0] for line in said] == [
        "bird/2.png looks like dog/2.jpeg, which is 'dog'",
        "cat/1.bmp looks like dog/1.jpeg, which is 'dog'",
        f"dog/1.jpeg looks like data/images/{DAYS[0]}/cat/1.png, which is 'cat'",
        "dog/2.jpeg looks like bird/2.png, which is 'bird'",
    ]


def test_how_an_image_looks_is_what_was_written_last(project):
    open_day(project, DAYS[0])
    deliver(project.images(DAYS[0]), "cat", [1])
    run_stages(project, snapshot)
    history = manifest.history(project, DAYS[0])
    image = history.images["image"][0]
    mine = [("f" * 32, "dog/1.png", "dog")]
    for last, found in (("f" * 32, 1), ("0" * 32, 0)):
        earlier = pl.DataFrame({"image": [image] * 3, "look": ["f" * 32, "0" * 32, last]})
        assert len(looks.nearest(mine, ["label"], history=history, earlier=earlier)) == found


def test_a_file_of_looks_with_other_columns_is_named(project):
    for day in DAYS[:2]:
        tables.write(project.looks(day), tables.Look, [(day, "0" * 32)])
    assert sorted(looks.read(project, DAYS)["image"]) == sorted(DAYS[:2])
    project.looks(DAYS[1]).write_text("image,picture\n")
    with pytest.raises(LedgerError, match=rf"looks/{DAYS[1]}\.csv was changed"):
        looks.read(project, DAYS)
