"""What grows with the history: the commands of a small day after 10, 100 and 1,000 days.

    python benchmarks/history.py [--days 10 100 1000] [--rows 1000]

Makes a project for each length of history. All days but the last three are written as files: a
manifest of 1,000 rows in ten classes, looks, evaluations, a gate, a pin of the images, a commit and
a tag each; no images, as in a clone that was not pulled, but for the few that a real day replays or
is judged by. Then come three real days of 20 images: yesterday by `dayfold run`; today command by
command, each three times, in turn over the projects, so that what else the machine does
falls on all; tomorrow by `dayfold run`, once. Prints medians, the ratio of the longest history to
the shortest, the longest one's CPU seconds and peak memory, and what of it meets its goal.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import polars as pl
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from dayfold import draws
from dayfold.cycle import hand_edits
from dayfold.figures import counts, evidence, metrics
from dayfold.ledger import corrections, manifest, tables
from dayfold.ledger.manifest import HELD_OUT, Row
from dayfold.ledger.tables import Check, Evaluation, Look, Prediction, Unknown, Unlike
from dayfold.project import params as params_file
from dayfold.project import storage, vcs
from dayfold.project.files import json_bytes, md5, sha256, sha256_file, write_bytes
from dayfold.project.layout import ORIGIN, Project
from dayfold.stages import replay, train

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from builders import NO_GATE

REPRO, WHOLE = "dvc repro (no-op)", "a whole day"
WHOLE_DAY = "dayfold run ../in/{tomorrow} --day {tomorrow}"
MOST_RATIO = 1.5  # of the longest history to the shortest, of REPRO
STAGES, MOST_SECONDS, MOST_MIB = ("snapshot", "weights", "replay"), 5.0, 2048.0
ORDER = (*STAGES, "curve", "log", "add", REPRO, WHOLE)
LABELS = [str(label) for label in range(10)]
SPLITS = ("train",) * 7 + ("validation",) + ("test",) * 2
IMAGES = 20  # of a real day
OLD = "data/old"  # where made days have their images: a day's own folder is there whole, or not
SMALL = {
    "train.updates": 2,
    "evaluate.max_per_cohort": 1,
    **NO_GATE,
}
# Starts a command from a small process: no peak is below that of the process that it came from.
WITNESS = """
import json, os, sys, time

began = time.perf_counter()
process = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, used = os.wait4(process, 0)
seconds = time.perf_counter() - began
print(json.dumps([seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
sys.exit(os.waitstatus_to_exitcode(status))
"""


class Spent(NamedTuple):
    """What a command and all that it started took; `peak` is the largest process's, in MiB."""

    seconds: float
    cpu: float
    peak: float


class History(NamedTuple):
    """A project, a digit of each label as PNG, and the last three days, which are real."""

    project: Project
    digits: Mapping[str, bytes]
    yesterday: str
    today: str
    tomorrow: str

    def image(self, label: str, number: int) -> bytes:
        """An image of a made day: a digit, and behind its end what no other image has."""
        return self.digits[label] + number.to_bytes(4)


def say(text: str) -> None:
    """Tell how far it is, beside the tables."""
    print(text, file=sys.stderr, flush=True)


def run(root: Path, words: str, says: str = "") -> Spent:
    """Run a command that must succeed and say this, and return what it took."""
    done = subprocess.run(
        [sys.executable, "-c", WITNESS, *words.split()],
        cwd=root,
        env=vcs.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode or says not in done.stdout:
        raise SystemExit(f"{words}:\n{done.stdout}")
    return Spent(*json.loads(done.stdout.splitlines()[-1]))


def write_day(folder: Path, first: int, count: int) -> None:
    """Write `count` digits as PNG files, from the `first` on; each time around moved by a pixel."""
    digits = load_digits()
    for number in range(first, first + count):
        turn, position = divmod(number, len(digits.target))
        pixels = np.roll(digits.images[position] * (255 / 16), turn, axis=1).astype(np.uint8)
        path = folder / str(digits.target[position]) / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((32, 32)).save(path)


def make(folder: Path, count: int, rows: int) -> History:
    """Make a project of `count` days, of which today is the last and not yet open."""
    days = [(date(2022, 1, 1) + timedelta(days=number)).isoformat() for number in range(count + 1)]
    write_day(folder / "digits", 0, len(LABELS))
    digits = {label: next((folder / "digits" / label).iterdir()).read_bytes() for label in LABELS}
    for number, day in enumerate(days[-3:]):
        write_day(folder / "in" / day, len(LABELS) + number * IMAGES, IMAGES)
    run(folder, "dayfold init scans --weights random --image-size 32")
    made = History(Project(folder / "scans"), digits, *days[-3:])
    write_days(made, days[:-3], rows)
    seal_days(made.project, days[:-3])
    lay_out(made, days[-4], made.yesterday)
    run(made.project.root, WHOLE_DAY.format(tomorrow=made.yesterday))
    return made


def write_days(made: History, days: Sequence[str], rows: int) -> None:
    """Write what made days leave in the working tree, and what the last of them made."""
    project, pin = made.project, sha256_file(made.project.manifest(ORIGIN))
    each, pins = rows // len(LABELS), dict[Path, list[dict[str, object]]]()
    for position, (parent, day) in enumerate(pairwise((ORIGIN, *days))):
        added = []
        for at in range(len(LABELS) * each):
            number, label, split = position * rows + at, LABELS[at // each], SPLITS[at % 10]
            image = sha256(made.image(label, number))
            added.append(Row("add", image, f"{OLD}/{number:07}.png", label, "", split))
        manifest.write(project.manifest(day), parent_day=parent, parent_sha256=pin, rows=added)
        pin = sha256_file(project.manifest(day))
        tables.write(project.looks(day), Look, sorted((row.image, row.image[:32]) for row in added))
        tables.write(project.evaluation(day), Evaluation, evaluated(days, position, each // 5))
        checks = [Check("min_class_f1", label, 0.5, 0.95, 0.8, 0.99, 1) for label in LABELS]
        tables.write(project.gate(day), Check, checks)
        corrections.write_empty(project, day)
        entry = {"md5": md5(day.encode()) + storage.FOLDER, "size": rows, "nfiles": rows}
        out = {**entry, "hash": "md5", "path": day}
        file = project.tracked(day) if day == days[-1] else project.tracked_month(day)
        pins.setdefault(file, []).append(out)
    for file, outs in pins.items():
        write_bytes(file, yaml.safe_dump({"outs": outs}, sort_keys=False).encode())
    params_file.edit(project.params, {"day": days[-1], "parent": days[-2], **SMALL})
    plots = ("near_duplicates", "training", "classification", "flips", "cohorts", "confusion")
    others = (project.weights, project.replay, project.shares)
    for path in (*others, *map(project.plot, plots)):
        write_bytes(path, path.name.encode())
    tables.write(project.unknown(days[-1]), Unknown, [])
    tables.write(project.plot("unlike"), Unlike, [])
    last = days[-1]
    evaluations = {last: tables.evaluations(project, [last])}
    figures = metrics.day_metrics(counts.read(project, last), evaluations, {last: ()})
    known = evidence.of(manifest.history(project, days[-1]))
    evidence.judge(figures[days[-1]], known, ())
    # Of every day's length.
    write_bytes(project.figures, json_bytes(metrics.of_the_day(figures[days[-1]])))
    write_bytes(project.class_figures, json_bytes(metrics.by_class(figures[days[-1]])))
    for path in (project.metrics, project.provenance):
        write_bytes(path, b"{}\n")
    shutil.copyfile(project.parent_model, project.model)
    tables.write(project.predictions, Prediction, [])


def evaluated(days: Sequence[str], position: int, images: int) -> Iterator[Evaluation]:
    """A row a cohort and label, one of twenty of them wrong; last, yesterday's model on today's."""
    day, before = days[position], days[position - 1] if position else ORIGIN
    for model, cohorts in ((day, range(position + 1)), (before, (position,))):
        asked = images if model == day and position else None
        for cohort in cohorts:
            for at, label in enumerate(LABELS):
                is_wrong = (position * 7 + cohort * 3 + at) % 20 == 0
                said = LABELS[at - 1] if is_wrong else label
                yield Evaluation(model, days[cohort], label, said, 9, images, 0.94, asked)


def seal_days(project: Project, days: Sequence[str]) -> None:
    """Have DVC pin what the last made day made, and give each made day its commit and its tag."""
    root, folder = project.root, project.images(days[-1])
    folder.mkdir()
    vcs.dvc(root, "commit", "--quiet", "--force", project.name(project.dvc_yaml))
    folder.rmdir()
    others = ("dvc.lock", "params.yaml", "metrics.json", "data/metrics", "data/plots")
    vcs.git(root, "add", "--", *others, "data/provenance.json", hand_edits.TRACKED_IMAGES)
    vcs.git(root, "commit", "--quiet", "--message", "Make the history")
    stream = b"".join(commits(project, days))
    subprocess.run(["git", "fast-import", "--quiet"], cwd=root, input=stream, check=True)
    vcs.git(root, "reset", "--quiet")


def commits(project: Project, days: Sequence[str]) -> Iterator[bytes]:
    """Each day's commit of its own files, and its tag, as `git fast-import` takes them."""
    who = vcs.git(project.root, "var", "GIT_COMMITTER_IDENT").strip()
    head = f"refs/heads/{vcs.branch(project.root)}"
    kinds = (project.manifest, project.looks, project.evaluation, project.gate)
    same = {path: path.read_bytes() for path in (project.figures, project.class_figures)}
    for day in days:
        text = f"data {len(day)}\n{day}\n"
        since = f"from {head}^0\n" if day == days[0] else ""
        yield f"commit {head}\ncommitter {who}\n{text}{since}".encode()
        own = [kind(day) for kind in (*kinds, project.corrections, project.groups)]
        params = project.params.read_bytes().replace(days[-1].encode(), day.encode())
        files = {one: one.read_bytes() for one in own} | same | {project.params: params}
        for path, data in files.items():
            yield f"M 100644 inline {project.name(path)}\ndata {len(data)}\n".encode() + data
        yield f"tag {vcs.TAG}{day}\nfrom {head}\ntagger {who}\n{text}".encode()


def lay_out(made: History, parent: str, day: str) -> None:
    """Write those images of made days that a day replays, validates with or is judged by."""
    root, params = made.project.root, params_file.read(made.project.params)
    known, words = manifest.history(made.project, parent), params.replay.model_dump()
    old = known.split("validation")
    scope = (train.VALIDATION_IMAGES, "validation", params.seed, day)
    at, _ = draws.priority_sample(old["image"].to_list(), [1.0] * len(old), *scope)
    read = (
        replay.select(known.split("train"), weights={}, seed=params.seed, day=day, **words),
        evidence.sample(known.split(*HELD_OUT), params.evaluate.max_per_cohort),
        old[at],
    )
    (root / OLD).mkdir(exist_ok=True)
    for path, label in pl.concat([part.select("path", "label") for part in read]).iter_rows():
        if path.startswith(OLD):
            (root / path).write_bytes(made.image(label, int(Path(path).stem)))


def opened(made: History) -> None:
    """Have today open, and without images."""
    folder = made.project.images(made.today)
    if not folder.exists():
        run(made.project.root, f"dayfold add --day {made.today}", "images go to")
    for label in folder.iterdir():
        shutil.rmtree(label)


def repro(made: History) -> None:
    """Have today up to date."""
    lay_out(made, made.yesterday, made.today)
    run(made.project.root, "dvc repro")


def sealed(made: History) -> None:
    """Have today sealed, and what tomorrow reads of made days in place."""
    run(made.project.root, "dayfold seal", "sealed as")
    lay_out(made, made.today, made.tomorrow)


class Operation(NamedTuple):
    """A command, what it must say, and what is done before it: that takes back an earlier round."""

    words: str
    says: str = ""
    before: Callable[[History], object] = lambda _: None
    rounds: int = 3


OPERATIONS = {  # in this order
    "add": Operation("dayfold add ../in/{today} --day {today}", "next: dvc repro", opened),
    "snapshot": Operation("dayfold snapshot", f"{IMAGES} images ("),
    "weights": Operation("dayfold weights", "of today, weight"),
    "replay": Operation("dayfold replay", "earlier images"),
    "curve": Operation("dayfold curve", "gate: ", repro),
    REPRO: Operation("dvc repro", "up to date", repro),
    "log": Operation("dayfold log"),
    WHOLE: Operation(WHOLE_DAY, "sealed as", sealed, 1),
}


def measure(histories: Sequence[History], operation: Operation) -> list[Spent]:
    """Time an operation in each project in turn; the medians of its rounds, a project each."""
    told: list[list[Spent]] = [[] for _ in histories]
    for made, spent in [*zip(histories, told, strict=True)] * operation.rounds:
        operation.before(made)
        words = operation.words.format(today=made.today, tomorrow=made.tomorrow)
        spent.append(run(made.project.root, words, operation.says))
    return [Spent(*(median(values) for values in zip(*rounds, strict=True))) for rounds in told]


def show(days: Sequence[int], rows: int, found: Mapping[str, Sequence[Spent]]) -> None:
    """Print the table, and whether each goal is met."""
    last = days[-1]
    heads = (*(f"day {count:,}" for count in days), "ratio", "CPU seconds", "peak MiB")
    print(f"seconds, {rows:,} rows a day; CPU and peak of day {last:,}")
    print(f"| command | {' | '.join(heads)} |\n|{' --- |' * (len(heads) + 1)}")
    ratios = {name: each[-1].seconds / each[0].seconds for name, each in found.items()}
    for name in ORDER:
        seconds = " | ".join(f"{spent.seconds:.2f}" for spent in found[name])
        cpu, peak = found[name][-1].cpu, found[name][-1].peak
        print(f"| {name} | {seconds} | {ratios[name]:.2f} | {cpu:.2f} | {peak:.0f} |")
    stages = [found[stage][-1] for stage in STAGES]
    together = f"{' + '.join(STAGES)} of {last * rows:,} rows"
    goals = [(f"{REPRO}: day {last:,} to day {days[0]}", ratios[REPRO], MOST_RATIO)]
    goals.append((f"{together}, seconds", sum(spent.seconds for spent in stages), MOST_SECONDS))
    goals.append((f"{together}, peak MiB", max(spent.peak for spent in stages), MOST_MIB))
    for what, value, most in goals:
        print(f"{'met   ' if value <= most else 'MISSED'} {what}: {value:.2f} (<= {most:g})")


def main() -> None:
    """Make the histories in a temporary folder, measure in all of them, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--days", type=int, nargs="+", default=[10, 100, 1000], help="5 or more")
    parser.add_argument("--rows", type=int, default=1000, help="of a day, in tens of ten classes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        histories = []
        for count in options.days:
            began = time.perf_counter()
            histories.append(make(Path(name) / str(count), count, options.rows))
            say(f"{count} days made in {time.perf_counter() - began:.0f} s")
        found = {}
        for operation, how in OPERATIONS.items():
            say(operation)
            found[operation] = measure(histories, how)
    show(options.days, options.rows, found)


if __name__ == "__main__":
    main()
