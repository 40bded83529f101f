"""What yesterday's model calls unknown: new classes found, false alarms, a change of the scanner.

    python benchmarks/unknown.py FOLDER [--seeds 3] [--stream NAME …] [--fonts FOLDER]

The streams of benchmarks/retention.py and, with --fonts, letters: thirteen letters of colour at 32
px, upper and lower case, a group a font, four letters join, and from day 11 on handwriting does.
Each day is trained and evaluated by the stages themselves, so the figures are those that a project
records in data/unknown/. --fonts is a folder of font files named print-*.woff2 and hand-*.woff2.
docs/unknown.md was made with 143 and 40 families of the npm packages @fontsource/*, latin, regular
(OFL, Apache and UFL; `npm pack` brings them).
"""

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np
import polars as pl
import retention
from PIL import Image, ImageDraw, ImageFont
from retention import DAYS, Arrival, Pixels, Stream

from dayfold import backtest, draws
from dayfold.backtest import POLICIES
from dayfold.ledger import tables
from dayfold.project.layout import Project

LETTERS = "ABDEGHKMNQRST"
JOINS = {"Q": 3, "R": 6, "S": 9, "T": 12}
SIDE_PX, HAND_FROM = 64, 10


def letter(font: Path, text: str) -> Pixels:
    """Draw a letter in two colours, turned, moved and noisy by a hash of its name: [64, 64, 3]."""
    name = f"{font.name} {text}"
    drawn = draws.uniforms("letter", name, ids=[str(number) for number in range(10)])
    back, front = (tuple(int(30 + 195 * part) for part in drawn[at : at + 3]) for at in (0, 3))
    if sum(abs(a - b) for a, b in zip(back, front, strict=True)) < 150:
        front = tuple(255 if part < 128 else 0 for part in back)
    shape = ImageFont.truetype(font, int(34 + 16 * drawn[6]))
    image = Image.new("RGB", (SIDE_PX, SIDE_PX), back)
    pen = ImageDraw.Draw(image)
    left, top, right, bottom = pen.textbbox((0, 0), text, font=shape)
    across, down = (SIDE_PX / 2 + 8 * (drawn[at] - 0.5) for at in (7, 8))
    pen.text((across - (left + right) / 2, down - (top + bottom) / 2), text, front, shape)
    turned = image.rotate(24 * (drawn[9] - 0.5), Image.Resampling.BICUBIC, fillcolor=back)
    noise = draws.uniform_array("letter", name, shape=(SIDE_PX, SIDE_PX, 3))
    return np.clip(np.asarray(turned) + 24 * noise, 0, 255)


def letters(folder: Path, seed: int) -> Iterator[Arrival]:
    """Every letter of every font on the font's day; the seed shuffles which font comes when."""
    number = 0
    for kind, first in (("print", 0), ("hand", HAND_FROM)):
        fonts = sorted(folder.glob(f"{kind}-*"))
        keys = draws.uniforms("font", seed, ids=[font.name for font in fonts])
        for turn, at in enumerate(np.argsort(keys)):
            day = first + turn % (len(DAYS) - first)
            for text in LETTERS:
                if day >= JOINS.get(text, 0):
                    both = [letter(fonts[at], form) for form in (text, text.lower())]
                    yield number, text, day, both
            number += 1


def run(folder: Path, stream: str, seed: int) -> pl.DataFrame:
    """Run the default policy over a stream; its tables of what was unknown, with the day."""
    params = retention.recipe(POLICIES["project"], seed)
    history = retention.build(stream, params, folder / "streams" / f"{stream}-{seed}")
    scratch = Project(folder / "runs" / f"{stream}-{seed}")
    backtest.run_days(history, scratch, params, POLICIES["project"])
    found = [tables.unknown(scratch, day).with_columns(day=pl.lit(day)) for day in history.days]
    return pl.concat(found).filter(label="").with_columns(seed=pl.lit(seed))


def main() -> None:
    """Print a line a stream; of a new scanner the false alarms of each day too."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--stream", action="append", choices=(*retention.STREAMS, "letters"))
    parser.add_argument("--fonts", type=Path)
    options = parser.parse_args()
    if options.fonts:
        given = partial(letters, options.fonts)
        retention.STREAMS["letters"] = Stream("thirteen letters of many fonts", given=given)
    for stream in options.stream or retention.STREAMS:
        retention.BUDGET["train.image_size_px"] = 32 if stream == "letters" else 16
        rows = pl.concat([run(options.folder, stream, seed) for seed in range(options.seeds)])
        said = []
        for new, what in ((1, "found"), (0, "false alarms")):
            part = rows.filter(pl.col("new") == new, pl.col("unknown").is_not_null())
            if len(part):
                said.append(f"{what} {part['unknown'].sum() / part['images'].sum():.3f}")
        areas = rows["auroc"].drop_nulls().to_list()
        if areas:
            said.append(f"AUROC {fmean(areas):.3f} ({len(areas)} days, {min(areas):.3f} up)")
        print(f"{stream}: {', '.join(said)}", flush=True)
        if retention.STREAMS[stream].changes_on is not None:
            known = rows.filter(pl.col("new") == 0, pl.col("unknown").is_not_null())
            by = known.group_by("day").agg(pl.col("unknown", "images").sum()).sort("day")
            parts = by.select(pl.col("unknown") / pl.col("images")).to_series()
            print("  false alarms by day:", " ".join(f"{part:.2f}" for part in parts))


if __name__ == "__main__":
    main()
