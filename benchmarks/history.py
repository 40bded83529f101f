"""What grows with the history: the commands of a small day after 10 and 1,000 days.

    python benchmarks/history.py [--days 10 1000] [--rows 1000]

Makes a project for each length of history. All days but the last three are written as files: a
manifest of 1,000 rows in ten classes, looks, evaluations, a gate, a pin of the images, a commit and
a tag each; no images, as in a clone that was not pulled, but for the few that a real day replays or
is judged by. Then come three real days of 20 images: yesterday by `dayfold run`; today command by
command, each three times, in turn over the projects, so that what else the machine does
falls on all; tomorrow by `dayfold run`, once. Prints medians, and the peak memory of the longest
history. Its days are five at least.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import polars as pl
import yaml
from measuring import Spent, command_line, measure
from PIL import Image
from sklearn.datasets import load_digits

from builders import NO_GATE, fill_outputs, png, write_manifest
from dayfold.figures import evidence
from dayfold.ledger import corrections, manifest, tables
from dayfold.ledger.manifest import HELD_OUT, Row
from dayfold.ledger.tables import Check, Evaluation, Look, Prediction, Unknown, Unlike
from dayfold.project import params as params_file
from dayfold.project import storage, vcs
from dayfold.project.files import json_bytes, md5, sha256, write_bytes
from dayfold.project.layout import ORIGIN, Project
from dayfold.stages import replay, train

LABELS = [str(label) for label in range(10)]
SPLITS = ("train",) * 7 + ("validation",) + ("test",) * 2
IMAGES = 20  # of a real day
OLD = "data/old"  # where made days have their images: a day's own folder is there whole, or not
SMALL = {"train.updates": 2, "evaluate.max_per_cohort": 1, **NO_GATE}
PICTURE = png(0)


class History(NamedTuple):
    """A project, and the last three days, which are real."""

    project: Project
    yesterday: str
    today: str
    tomorrow: str


def image(number: int) -> bytes:
    """An image of a made day: behind its end is what no other image has."""
    return PICTURE + number.to_bytes(4)


def run(made: History, words: str, says: str = "") -> Spent:
    """Run a command that must succeed and say this; what it took."""
    spent, said = measure(made.project.root, *words.split())
    if says not in said:
        raise SystemExit(f"{words}:\n{said}")
    return spent


def write_digits(folder: Path, first: int) -> None:
    """Write a real day's digits, from the `first` on."""
    digits = load_digits()
    for number in range(first, first + IMAGES):
        path = folder / str(digits.target[number]) / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (digits.images[number] * (255 / 16)).astype(np.uint8)
        Image.fromarray(pixels).resize((32, 32)).save(path)


def make(folder: Path, count: int, rows: int) -> History:
    """Make a project of `count` days, of which today is the last and not yet open."""
    days = [(date(2022, 1, 1) + timedelta(days=number)).isoformat() for number in range(count + 1)]
    for number, day in enumerate(days[-3:]):
        write_digits(folder / "in" / day, number * IMAGES)
    measure(folder, "dayfold", "init", "scans", "--weights", "random", "--image-size", "32")
    made = History(Project(folder / "scans"), *days[-3:])
    write_days(made.project, days[:-3], rows)
    seal_days(made.project, days[:-3])
    lay_out(made.project, days[-4], made.yesterday)
    run(made, f"dayfold run ../in/{made.yesterday} --day {made.yesterday}")
    return made


def write_days(project: Project, days: Sequence[str], rows: int) -> None:
    """Write what made days leave in the working tree, and what the last of them made."""
    pins: dict[Path, list[dict[str, object]]] = {}
    each, last = rows // len(LABELS), days[-1]
    for position, day in enumerate(days):
        added = []
        for at in range(len(LABELS) * each):
            number, label, split = position * rows + at, LABELS[at // each], SPLITS[at % 10]
            id_ = sha256(image(number))
            added.append(Row("add", id_, f"{OLD}/{number:07}.png", label, "", split))
        write_manifest(project, day, days[position - 1] if position else ORIGIN, added)
        tables.write(project.looks(day), Look, sorted((row.image, row.image[:32]) for row in added))
        tables.write(project.evaluation(day), Evaluation, evaluated(days, position, each // 5))
        checks = [Check("min_class_f1", label, 0.5, 0.95, 0.8, 0.99, 1) for label in LABELS]
        tables.write(project.gate(day), Check, checks)
        corrections.write_empty(project, day)
        entry = {"md5": md5(day.encode()) + storage.FOLDER, "size": rows, "nfiles": rows}
        file = project.tracked(day) if day == last else project.tracked_month(day)
        pins.setdefault(file, []).append({**entry, "hash": "md5", "path": day})
    for file, outs in pins.items():
        write_bytes(file, yaml.safe_dump({"outs": outs}, sort_keys=False).encode())
    params_file.edit(project.params, {"day": last, "parent": days[-2], **SMALL})
    made = {"draws": {"all": 2, "today": 1, "by_class": {}}, "new_classes": []}
    made["images"] = {"trained": 2, "replayed": 1}
    write_bytes(project.provenance, json_bytes(made))
    measure(project.root, "dayfold", "curve")  # figures as long as every day's
    shutil.copyfile(project.parent_model, project.model)
    tables.write(project.predictions, Prediction, [])
    tables.write(project.unknown(last), Unknown, [])
    tables.write(project.plot("unlike"), Unlike, [])
    fill_outputs(project, last)


def evaluated(days: Sequence[str], position: int, images: int) -> Iterator[Evaluation]:
    """A row a cohort and label; last, yesterday's model on today's."""
    day, before = days[position], days[position - 1] if position else ORIGIN
    for model, cohorts in ((day, range(position + 1)), (before, (position,))):
        asked = images if model == day and position else None
        for cohort in cohorts:
            for label in LABELS:
                yield Evaluation(model, days[cohort], label, label, 9, images, 0.94, asked)


def seal_days(project: Project, days: Sequence[str]) -> None:
    """Have DVC pin what the last made day made, and give each made day its commit and its tag."""
    root, folder = project.root, project.images(days[-1])
    folder.mkdir()
    vcs.dvc(root, "commit", "--quiet", "--force", project.name(project.dvc_yaml))
    folder.rmdir()
    vcs.git(root, "config", "gc.auto", "0")
    shared = ("dvc.lock", "metrics.json", "data/metrics", "data/plots", "data/provenance.json")
    vcs.git(root, "add", "--", *shared, "data/images")
    vcs.git(root, "commit", "--quiet", "--message", "Make the history")
    kinds = (project.manifest, project.looks, project.evaluation, project.gate)
    parent = ORIGIN
    for day in days:
        params_file.edit(project.params, {"day": day, "parent": parent})
        own = [kind(day) for kind in (*kinds, project.corrections, project.groups)]
        vcs.git(root, "add", "--", *map(project.name, (*own, project.params)))
        vcs.git(root, "commit", "--quiet", "--message", day)
        vcs.git(root, "tag", "--annotate", "--message", day, vcs.TAG + day)
        parent = day
    vcs.git(root, "repack", "-a", "-d", "-q")


def lay_out(project: Project, parent: str, day: str) -> None:
    """Write those images of made days that a day replays, validates with or is judged by."""
    params, known = params_file.read(project.params), manifest.history(project, parent)
    words = params.replay.model_dump()
    read = (
        replay.select(known.split("train"), weights={}, seed=params.seed, day=day, **words),
        evidence.sample(known.split(*HELD_OUT), params.evaluate.max_per_cohort),
        train._sample(known.split("validation"), day, params.seed),
    )
    (project.root / OLD).mkdir(exist_ok=True)
    for path in pl.concat([part["path"] for part in read]):
        if path.startswith(OLD):
            (project.root / path).write_bytes(image(int(Path(path).stem)))


def opened(made: History) -> None:
    """Have today open, and without images."""
    folder = made.project.images(made.today)
    if not folder.exists():
        run(made, f"dayfold add --day {made.today}", "images go to")
    for label in folder.iterdir():
        shutil.rmtree(label)


def repro(made: History) -> None:
    lay_out(made.project, made.yesterday, made.today)
    run(made, "dvc repro")


def sealed(made: History) -> None:
    """Have today sealed, and what tomorrow reads of made days in place."""
    run(made, "dayfold seal", "sealed as")
    lay_out(made.project, made.today, made.tomorrow)


def timed(
    histories: Sequence[History],
    words: str,
    says: str = "",
    before: Callable[[History], None] = lambda made: None,  # noqa: ARG005
    rounds: int = 3,
) -> None:
    """Time a command in each project in turn, after what takes back an earlier round; print it."""
    spent: list[list[Spent]] = [[] for _ in histories]
    for made, own in [*zip(histories, spent, strict=True)] * rounds:
        before(made)
        own.append(run(made, words.format(**made._asdict()), says))
    seconds = " | ".join(f"{median(one.seconds for one in own):.2f}" for own in spent)
    peak = median(one.peak for one in spent[-1])
    print(f"| {words} | {seconds} | {peak:,.0f} |", flush=True)


def main() -> None:
    options = command_line(__doc__, days=[10, 1000], rows=1000)
    with TemporaryDirectory() as name:
        made = [make(Path(name) / str(count), count, options.rows) for count in options.days]
        heads = " | ".join(f"day {count:,}" for count in options.days)
        print(f"| command, s | {heads} | peak, MiB |\n|{' --- |' * (len(made) + 2)}")
        timed(made, "dayfold add ../in/{today} --day {today}", "next: dvc repro", opened)
        timed(made, "dayfold snapshot", f"{IMAGES} images (")
        timed(made, "dayfold weights", "of today, weight")
        timed(made, "dayfold replay", "earlier images")
        timed(made, "dayfold curve", "gate: ", repro)
        timed(made, "dvc repro", "up to date", repro)
        timed(made, "dayfold log")
        timed(made, "dayfold run ../in/{tomorrow} --day {tomorrow}", "sealed as", sealed, rounds=1)


if __name__ == "__main__":
    main()
