"""What each policy and option is worth: six streams of digits, fifteen days each, several seeds.

    python benchmarks/retention.py FOLDER [--seeds 5] [--processes 2] [--part policies|ablation]
        [--judge test|validation]

A stream is a plain project folder without git and DVC; its days are trained and evaluated by the
same code as `dayfold backtest`. It prints a table a stream. Every finished run is a line of
benchmarks/retention.csv and is not made again as long as its recipe is the same: interrupted, or on
another machine, it goes on where it was. Defaults are chosen by `--judge validation`: the very same
trainings, with the validation images in the place of the test images, so that no value is tuned on
a test split.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import date, timedelta
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image, ImageOps
from sklearn.datasets import load_digits

from dayfold import backtest, create, draws
from dayfold.backtest import POLICIES, History, Policy
from dayfold.figures import comparison
from dayfold.learning.inputs import DEPTHS
from dayfold.ledger import manifest, splits, tables
from dayfold.ledger.manifest import Row
from dayfold.ledger.tables import BacktestRun
from dayfold.project import params as params_file
from dayfold.project.console import Ticker, show
from dayfold.project.files import canonical_json, parse_csv, sha256, write_bytes, write_csv
from dayfold.project.layout import ORIGIN, Project
from dayfold.project.params import Params
from dayfold.stages import snapshot

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).with_suffix(".csv")
COLUMNS = {
    "judge": pl.String(),
    "stream": pl.String(),
    "recipe": pl.String(),
    **tables.schema(BacktestRun),
}
BUDGET = {  # as many updates a day as the default; a stream takes one to three minutes on one core
    "train.image_size_px": 16,
    "train.updates": 150,
    "train.threads": 1,
}

COMPARED = ("project", "naive", "cumulative")
LEAST_F1 = {"new classes": 0.9, "rare class": 0.75}  # of a new class
# One thing changed at a time, on streams that ask for the opposite: to learn the rare, to keep the
# absent.
ABLATION_STREAMS = ("new classes", "rare class", "recurring")
VARIANTS: dict[str, dict[str, backtest.Value]] = {
    "weight 3.0": {"weights.recent": 3.0},
    "no class balance": {"weights.class_balance": 0.0},
    "no class balance, weight 3.0": {"weights.class_balance": 0.0, "weights.recent": 3.0},
    "class balance 0.5": {"weights.class_balance": 0.5},
    "weight 3.0 over 5": {"weights.recent": 3.0, "weights.versions": 5},
    "over history": {"weights.over": "history"},
    "replay 0": {"replay.size": 0},
    "replay 100": {"replay.size": 100},
    "replay 300": {"replay.size": 300},
    "replay 1000": {"replay.size": 1000},
    "uniform": {"replay.policy": "uniform"},
    "recency, weight 3.0 over 5": {
        "replay.policy": "recency",
        "weights.recent": 3.0,
        "weights.versions": 5,
    },
    "distill 0.5": {"train.distill": 0.5},
    "no EMA": {"train.ema_length": 0.0},
    "fp32": {"train.precision": "fp32"},
    **{f"frozen through {depth}": {"train.frozen_through": depth} for depth in DEPTHS},
}


DAYS = tuple((date(2025, 6, 2) + timedelta(days=number)).isoformat() for number in range(15))
RARE = {"train": 0.2, "validation": 0.05, "test": 0.75}  # 8 of 40 images, 30 to test on

Pixels = NDArray[np.float64]  # [8, 8] in 0..255, or [h, w, 3]
Plan = Callable[[int, int], bool]  # (digit, day) → whether its images come
Arrival = tuple[int, int | str, int, list[Pixels]]  # number, label, day, frames


@dataclass(frozen=True)
class Stream:
    """Which digits come on which days, how many of each, and what the scanner makes of them."""

    says: str
    comes: Plan = lambda digit, day: True  # noqa: ARG005
    images: Mapping[int, int] | None = None  # of a digit; all of them where it is not named
    rare: int | None = None
    changes_on: int | None = None
    given: Callable[[int], Iterator[Arrival]] | None = None  # what comes by seed, if no digits


JOINS = {6: 3, 7: 6, 8: 9, 9: 12}
STREAMS = {
    "new classes": Stream(
        "six digits, four more join; each comes back on every third day only",
        lambda digit, day: (
            day == JOINS.get(digit, 0) or (day > JOINS.get(digit, 0) and (digit + day) % 3 == 0)
        ),
    ),
    "rare class": Stream(
        "nine digits a day; on day 8 a tenth with 8 training images, never seen again",
        lambda digit, day: day == 7 if digit == 9 else True,
        images={9: 40},
        rare=9,
    ),
    "new scanner": Stream(
        "ten digits a day; from day 8 on with half the contrast, noise, and smaller",
        changes_on=7,
    ),
    "steady": Stream("ten digits a day"),
    "recurring": Stream(
        "ten digits a day, but two are absent from day 5 to day 12",
        lambda digit, day: not (digit in (3, 7) and 4 <= day < 12),
    ),
    "imbalanced": Stream(
        "six digits of 178 on average, four of 9 in all: 20 to 1",
        images=dict.fromkeys((2, 5, 8, 9), 9),
    ),
}


def build(name: str, params: Params, folder: Path, *, judge: str = "test") -> History:
    """Write a stream's images and manifests and the origin; the history of its fifteen days.

    The seed of `params` shuffles which image comes when; `judge` by validation gives these the
    place of the test images.
    """
    stream, project = STREAMS[name], Project(folder)
    history = History(project, DAYS, folder / "origin", folder / "origin" / "model.safetensors")
    if (folder / "ready").exists():
        return history
    project.data.mkdir(parents=True, exist_ok=True)
    write_bytes(project.manifest(ORIGIN), (ROOT / "data/manifests/origin.csv").read_bytes())
    create.make_origin(project, params)
    project.parent.rename(folder / "origin")
    arrivals: dict[int, list[tuple[str, str, str, str]]] = {}
    given = stream.given(params.seed) if stream.given else _digits(stream, params.seed)
    for number, digit, day, frames in given:
        for turn, pixels in enumerate(frames):
            path = project.images(DAYS[day]) / str(digit) / f"digit-{number:04}-{turn}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.rint(pixels).astype(np.uint8)).save(path)
            row = (sha256(path.read_bytes()), project.name(path), str(digit), f"digit-{number}")
            arrivals.setdefault(day, []).append(row)
    parent = ORIGIN
    for number, day in enumerate(DAYS):
        earlier = manifest.history(project, parent)
        rows = []
        for is_rare in (False, True):
            mine = [row for row in arrivals[number] if (row[2] == str(stream.rare)) == is_rare]
            fractions = RARE if is_rare else params.data.split.fractions()
            # Alone: what other classes have of the splits would decide where its few images go.
            before = manifest.history(project, ORIGIN) if is_rare else earlier
            units = splits.units(mine, earlier=before, expression="")
            rows += snapshot.rows_of(mine, units=units, earlier=before, fractions=fractions)
        manifest.write(
            project.manifest(day), parent_day=parent, parent_sha256=earlier.sha256, rows=rows
        )
        parent = day
    if judge == "validation":
        _judge_by_validation(project)
    (folder / "ready").touch()
    return history


def _judge_by_validation(project: Project) -> None:
    """Rewrite the manifests: no test images, and the validation images tested on instead."""
    parent, pin = ORIGIN, sha256(project.manifest(ORIGIN).read_bytes())
    for day in DAYS:
        rows = [Row(*row) for row in tables.read(project.manifest(day), Row)[1:].iter_rows()]
        moved = [
            row._replace(split="test" if row.split == "validation" else row.split)
            for row in rows
            if row.split != "test"
        ]
        manifest.write(project.manifest(day), parent_day=parent, parent_sha256=pin, rows=moved)
        parent, pin = day, sha256(project.manifest(day).read_bytes())


def _digits(stream: Stream, seed: int) -> Iterator[Arrival]:
    """(number, digit, day, frames) of every digit; the seed shuffles which comes when."""
    digits = load_digits()
    for digit in range(10):
        numbers = np.flatnonzero(digits.target == digit)
        keys = draws.uniforms("stream", seed, ids=[str(number) for number in numbers])
        numbers = numbers[np.argsort(keys)][: (stream.images or {}).get(digit)]
        days = [day for day in range(len(DAYS)) if stream.comes(digit, day)]
        for turn, number in enumerate(map(int, numbers)):
            day = days[turn % len(days)]
            frames = _frames(digits.images[number] * (255 / 16), seed, number)
            if digit == stream.rare:
                frames = frames[:1]
            if stream.changes_on is not None and day >= stream.changes_on:
                frames = [
                    _other_scanner(pixels, f"{number} {at}") for at, pixels in enumerate(frames)
                ]
            yield number, digit, day, frames


def _frames(pixels: Pixels, seed: int, number: int) -> list[Pixels]:
    """Three frames of one digit, as of one patient: as it is, moved by a pixel, and noisy."""
    way = int(4 * draws.uniforms("way", seed, ids=[str(number)])[0])
    moved = np.roll(pixels, (1, -1)[way % 2], axis=way // 2)
    noise = draws.uniform_array("noise", seed, str(number), shape=pixels.shape)
    return [pixels, moved, np.clip(pixels + 32 * noise, 0, 255)]


def _other_scanner(pixels: Pixels, name: str) -> Pixels:
    """Three quarters of the size, half the contrast upon grey, and noise."""
    image = Image.fromarray(np.rint(pixels).astype(np.uint8))
    small = ImageOps.expand(image.resize((12, 12), Image.Resampling.BICUBIC), border=2, fill=0)
    noise = draws.uniform_array("scanner", name, shape=(16, 16))
    return np.clip(64 + np.asarray(small) * 0.5 + noise * 32, 0, 255)


def recipe(policy: Policy, seed: int) -> Params:
    """Return the repository's params with the benchmark's budget and a policy's changes."""
    params = params_file.read(ROOT / "params.yaml").model_copy(update={"seed": seed})
    return params_file.changed(params, {"origin.weights": "random", **BUDGET, **policy.changes})


def recipe_key(policy: Policy) -> str:
    """Return eight characters that are others as soon as a day would be trained otherwise."""
    sections = recipe(policy, 0).model_dump(include={*backtest.TUNABLE, "evaluate"})
    return sha256(canonical_json([sections, policy.full_passes]).encode())[:8]


def _stream(folder: Path, judge: str, stream: str, seed: int) -> History:
    params = recipe(POLICIES["project"], seed)
    own = folder / judge / "streams" / f"{stream}-{seed}"
    return build(stream, params, own, judge=judge)


def job(folder: Path, judge: str, stream: str, policy: Policy, seed: int) -> BacktestRun:
    """Run a policy over a stream; go on with what an interrupted one left."""
    history = _stream(folder, judge, stream, seed)
    runs = folder / judge / "runs" / stream / policy.name
    scratch = Project(runs / f"{seed}-{recipe_key(policy)}")
    params = recipe(POLICIES["project"], seed)
    backtest.run_days(history, scratch, params, policy)
    return backtest.summary(scratch, params, policy.name, seed, history.days)


Job = tuple[str, Policy, int]  # stream, policy, seed
Results = dict[tuple[str, str, str, int], tuple[str, BacktestRun]]


def results() -> Results:
    """Return (judge, stream, policy, seed) → recipe and figures of every run on record."""
    found: Results = {}
    if RESULTS.exists():
        lines = parse_csv(RESULTS.read_bytes(), COLUMNS, RESULTS.name)
        for judge, stream, made, *figures in lines.iter_rows():
            one = BacktestRun(*figures)
            found[judge, stream, one.policy, one.seed] = made, one
    return found


def run(
    folder: Path, judge: str, jobs: Sequence[Job], processes: int
) -> dict[str, list[BacktestRun]]:
    """Run what is not on record, `processes` at a time; the runs a stream, in the jobs' order."""
    done = results()

    def key(one: Job) -> tuple[str, str, str, int]:
        stream, policy, seed = one
        return judge, stream, policy.name, seed

    keys = {policy.name: recipe_key(policy) for _, policy, _ in jobs}
    missing = [one for one in jobs if done.get(key(one), ("",))[0] != keys[one[1].name]]
    with (
        Ticker("runs", len(missing), "runs") as ticker,
        ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool,
    ):
        needed = dict.fromkeys((folder, judge, stream, seed) for stream, _, seed in missing)
        for made in [pool.submit(_stream, *one) for one in needed]:
            made.result()
        waiting = {pool.submit(job, folder, judge, *one): one for one in missing}
        for finished in as_completed(waiting):
            one, figures = waiting[finished], finished.result()
            done[key(one)] = keys[one[1].name], figures
            lines = [(*at[:2], *made, *figures) for at, (*made, figures) in sorted(done.items())]
            write_csv(RESULTS, list(COLUMNS), lines)
            ticker.line(f"{one[0]}: {comparison.line(figures)}")
            ticker.advance(1)
    found: dict[str, list[BacktestRun]] = {}
    for one in jobs:
        found.setdefault(one[0], []).append(done[key(one)][1])
    return found


def claims(stream: str, runs: Sequence[BacktestRun]) -> Iterator[str]:
    """What is asked of the default policy, and whether it holds, a line each (means over seeds)."""

    def mean(policy: str, figure: str) -> float:
        return fmean(getattr(one, figure) for one in runs if one.policy == policy)

    below = mean("cumulative", "average_accuracy") - mean("project", "average_accuracy")
    part = mean("project", "images") / mean("cumulative", "images")
    asked = [
        ("ACC below cumulative's", below, 0.01),
        ("part of cumulative's images", part, 0.4),
        ("forgetting", mean("project", "forgetting"), 0.04 if stream == "new scanner" else 0.02),
    ]
    if stream in LEAST_F1:  # of a new class; here as what it lacks of 1
        asked.append(
            ("F1 of a new class lacks", 1 - mean("project", "new_f1"), 1 - LEAST_F1[stream])
        )
        asked.append(("confidence in it lacks", 1 - mean("project", "new_confidence"), 0.2))
    for what, value, limit in asked:
        met = "met   " if value <= limit else "MISSED"
        yield f"{met} {stream}: {what}: {value:.3f} (<= {limit:.2f})"


def main() -> None:
    """Run what is not yet there, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--part", choices=("policies", "ablation"), default="policies")
    parser.add_argument("--judge", choices=("test", "validation"), default="test")
    options = parser.parse_args()
    names, policies = tuple(STREAMS), [POLICIES[name] for name in COMPARED]
    if options.part == "ablation":
        names = ABLATION_STREAMS
        policies = [POLICIES["project"], *(Policy(*variant) for variant in VARIANTS.items())]
    jobs = [
        (stream, policy, seed)
        for seed in range(options.seeds)
        for policy in policies
        for stream in names
    ]
    for stream, runs in run(options.folder, options.judge, jobs, options.processes).items():
        print(f"\n{stream}, {options.seeds} seeds")
        show(comparison.table(runs))
        if options.part == "policies":
            print(*claims(stream, runs), sep="\n")


if __name__ == "__main__":
    main()
