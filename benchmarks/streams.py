"""The streams that recipes are measured on: what comes on which day, and what one starts from.

A stream is a plain project folder without git and DVC. Those of scikit-learn's digits have 16 px;
two are pictures in colour (benchmarks/pictures.py). Each picture stream also begins from a network
that was trained on the other, as a team begins from its own model or from ImageNet.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import measuring  # noqa: F401 - finds tests/
import numpy as np
import pictures
from pictures import CACHE, Arrival, Pixels
from PIL import Image, ImageOps
from sklearn.datasets import load_digits

from builders import ROOT, make_project
from dayfold import create, draws
from dayfold.backtest import BacktestDays
from dayfold.ledger import grouping, manifest, tables
from dayfold.ledger.grouping import NewImage
from dayfold.ledger.manifest import Row
from dayfold.project import params as params_file
from dayfold.project.files import sha256
from dayfold.project.layout import ORIGIN, Project
from dayfold.project.params import Params
from dayfold.stages import replay, snapshot, train, weights

DAYS = tuple(f"2025-06-{day:02}" for day in range(2, 17))
RARE = {"train": 0.2, "validation": 0.05, "test": 0.75}  # 8 of 40 images, 30 to test on
START_UPDATES = 2000  # of a network that another stream starts from


@dataclass(frozen=True)
class Stream:
    """Which digits come on which days, how many of each, and what the scanner makes of them.

    Or, where `given` is set, what it yields for a seed; `start` is the stream whose images the
    origin was trained on, and "" a random one.
    """

    comes: Callable[[int, int], bool] = lambda digit, day: True  # noqa: ARG005
    images: Mapping[int, int] | None = None  # of a digit; all of them where it is not named
    rare: str | None = None
    changes_on: int | None = None
    given: Callable[[int], Iterator[Arrival]] | None = None
    days: int = 15
    size_px: int = 16
    start: str = ""
    fractions: Mapping[str, float] | None = None  # of the splits; the project's where it is None


JOINS = {6: 3, 7: 6, 8: 9, 9: 12}
STREAMS = {
    # Six digits, four more join; each of these comes back on every third day only.
    "new classes": Stream(
        lambda digit, day: (
            day == JOINS.get(digit, 0) or (day > JOINS.get(digit, 0) and (digit + day) % 3 == 0)
        ),
    ),
    # Nine digits a day; on day 8 a tenth with 8 training images, never seen again.
    "rare class": Stream(
        lambda digit, day: day == 7 if digit == 9 else True,
        images={9: 40},
        rare="9",
    ),
    # From day 8 on with half the contrast, noise, and smaller.
    "new scanner": Stream(changes_on=7),
    "steady": Stream(),
    "recurring": Stream(lambda digit, day: not (digit in (3, 7) and 4 <= day < 12)),
    # Six digits of 178 on average, four of 9 in all: 20 to 1.
    "imbalanced": Stream(images=dict.fromkeys((2, 5, 8, 9), 9)),
}
LETTERS = Stream(given=pictures.letters, size_px=32)
ICONS = Stream(given=pictures.icons, days=pictures.ICON_DAYS, size_px=64)
PICTURES = {
    "letters": LETTERS,
    "letters from icons": replace(LETTERS, start="icons"),
    "icons": ICONS,
    "icons from letters": replace(ICONS, start="letters"),
}
SIZES = {  # 20 images a day to train on, and 750
    "small days": Stream(fractions={"train": 0.056, "validation": 0.472, "test": 0.472}),
    "large days": Stream(lambda digit, day: day < 5, days=5),  # noqa: ARG005
}
ALL = {**STREAMS, **PICTURES, **SIZES}


def params(name: str, seed: int) -> Params:
    """Return the repository's params with a stream's size and start, and one thread."""
    stream = ALL[name]
    changes = {
        "origin.weights": str(_trained(stream.start)) if stream.start else "random",
        "train.image_size_px": stream.size_px,
        "train.threads": 1,
    }
    usual = params_file.read(ROOT / "params.yaml").model_copy(update={"seed": seed})
    return params_file.with_changes(usual, changes)


def build(name: str, seed: int, folder: Path, judge: str = "test") -> BacktestDays:
    """Write a stream's images and manifests and the origin; the history of its days.

    The seed shuffles which image comes when; `judge` by validation gives these the place of the
    test images.
    """
    project, days = Project(folder), DAYS[: ALL[name].days]
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _write(folder, ALL[name], params(name, seed))
        project.parent.rename(folder / "origin")
        if judge == "validation":
            _judge_by_validation(project, days)
        (folder / "ready").touch()
    return BacktestDays(project, days, folder / "origin", folder / "origin" / "model.safetensors")


def _write(root: Path, stream: Stream, params: Params, *, at_once: bool = False) -> Project:
    """The origin, the images and a manifest a day; `at_once`: all that comes, on the first day."""
    project = make_project(root)
    create.make_origin(project, params)
    arrivals: dict[int, list[NewImage]] = {}
    given = stream.given(params.seed) if stream.given else _digits(stream, params.seed)
    for number, label, comes, frames in given:
        arrives = 0 if at_once else comes
        for turn, pixels in enumerate(frames):
            path = project.images(DAYS[arrives]) / label / f"{number:04}-{turn}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.rint(pixels).astype(np.uint8)).save(path)
            id_, name = sha256(path.read_bytes()), project.name(path)
            arrivals.setdefault(arrives, []).append(NewImage(id_, name, label, f"digit-{number}"))
    parent = ORIGIN
    for turn, day in enumerate(DAYS[: len(arrivals)]):
        earlier = manifest.history(project, parent)
        rows = []
        for is_rare in (False, True):
            mine = [one for one in arrivals[turn] if (one.label == stream.rare) == is_rare]
            usual = stream.fractions or params.data.split.fractions()
            # Alone: what other classes have of the splits would decide where its few images go.
            before = manifest.history(project, ORIGIN) if is_rare else earlier
            units = grouping.units(mine, earlier=before, expression="")
            fractions = RARE if is_rare else usual
            rows += snapshot.rows_of(mine, units=units, earlier=before, fractions=fractions)
        manifest.write(
            project.manifest(day), parent_day=parent, parent_sha256=earlier.sha256, rows=rows
        )
        parent = day
    return project


def _trained(name: str) -> Path:
    """The network that one long day of all of a stream's images makes of a random one."""
    path = CACHE / f"{name}.safetensors"
    if not path.exists():
        with TemporaryDirectory() as folder:
            changes = {"train.updates": START_UPDATES, "train.image_size_px": pictures.SIDE_PX}
            long = params_file.with_changes(params(name, 0), changes)
            project = _write(Path(folder), ALL[name], long, at_once=True)
            day = long.model_copy(update={"day": DAYS[0], "parent": ORIGIN})
            for stage in (weights, replay, train):
                stage.run(project, day)
            shutil.copy(project.model, path)
    return path


def _judge_by_validation(project: Project, days: Sequence[str]) -> None:
    """Rewrite the manifests: no test images, and the validation images tested on instead."""
    parent, pin = ORIGIN, sha256(project.manifest(ORIGIN).read_bytes())
    for day in days:
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
            if str(digit) == stream.rare:
                frames = frames[:1]
            if stream.changes_on is not None and day >= stream.changes_on:
                frames = [_rescanned(pixels, f"{number} {at}") for at, pixels in enumerate(frames)]
            yield number, str(digit), day, frames


def _frames(pixels: Pixels, seed: int, number: int) -> list[Pixels]:
    """Three frames of one digit, as of one patient: as it is, moved by a pixel, and noisy."""
    way = int(4 * draws.uniforms("way", seed, ids=[str(number)])[0])
    moved = np.roll(pixels, (1, -1)[way % 2], axis=way // 2)
    noise = draws.uniform_array("noise", seed, str(number), shape=pixels.shape)
    return [pixels, moved, np.clip(pixels + 32 * noise, 0, 255)]


def _rescanned(pixels: Pixels, name: str) -> Pixels:
    """Three quarters of the size, half the contrast upon grey, and noise."""
    image = Image.fromarray(np.rint(pixels).astype(np.uint8))
    small = ImageOps.expand(image.resize((12, 12), Image.Resampling.BICUBIC), border=2, fill=0)
    noise = draws.uniform_array("scanner", name, shape=(16, 16))
    return np.clip(64 + np.asarray(small) * 0.5 + noise * 32, 0, 255)
