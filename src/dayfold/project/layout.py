"""Every path of a project, once."""

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from dayfold.errors import CycleError

ORIGIN = "origin"  # the parent of the first day
UNOPENED = "none"  # the day of a project that has not begun
STAGES = ("snapshot", "weights", "replay", "train", "evaluate", "curve")  # in order

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_NEARLY = re.compile(r"(\d{4})[-/._ ]?(\d{1,2})[-/._ ]?(\d{1,2})", re.ASCII)


def is_day(day: str) -> bool:
    """Whether `day` is a real date as YYYY-MM-DD: what is not becomes no path, tag or command."""
    try:
        return bool(_DAY.fullmatch(day) and date.fromisoformat(day))
    except ValueError:
        return False


def check_day(day: str) -> str:
    """Return `day` if it is a date as YYYY-MM-DD; CycleError otherwise."""
    if is_day(day):
        return day
    meant = _meant(day)
    shape = "give one of the calendar" if _DAY.fullmatch(day) else "write it as YYYY-MM-DD"
    mend = f"did you mean {meant}?" if meant else f"{shape}, 2025-06-04 say"
    raise CycleError(f"{day!r} is not a day.", mend=mend)


def _meant(text: str) -> str:
    """The day that year, month and day in figures come to, the last of its month at most."""
    found = _NEARLY.fullmatch(text.strip())
    if not found:
        return ""
    year, month, number = map(int, found.groups())
    for last in range(min(number, 31), 27, -1) if number > 28 else (number,):
        try:
            return date(year, month, last).isoformat()
        except ValueError:
            continue
    return ""


@dataclass(frozen=True)
class Project:
    """The paths of the project whose top folder is `root`."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> "Project":
        """Return the project that holds `start` (the current folder); CycleError if none does."""
        here = (start or Path.cwd()).resolve()
        for folder in (here, *here.parents):
            if (folder / "dvc.yaml").is_file() and (folder / "params.yaml").is_file():
                return cls(folder)
        raise CycleError(
            f"No dayfold project in {here} or above it (no dvc.yaml beside a params.yaml).",
            mend="dayfold init my-project && cd my-project",
        )

    def name(self, path: Path) -> str:
        """Return a path as it stands in manifests and messages: relative to the top, with `/`."""
        return path.relative_to(self.root).as_posix()

    # What a person edits or reads.
    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def dvc_yaml(self) -> Path:
        return self.root / "dvc.yaml"

    @property
    def dvc_lock(self) -> Path:
        return self.root / "dvc.lock"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.json"

    @property
    def data(self) -> Path:
        return self.root / "data"

    # What arrives.
    def images(self, day: str) -> Path:
        return self.data / "images" / day

    def tracked(self, day: str) -> Path:
        return self.data / "images" / f"{day}.dvc"

    def tracked_month(self, day: str) -> Path:
        return self.data / "images" / f"{day[:7]}.dvc"

    def corrections(self, day: str) -> Path:
        return self.data / "corrections" / f"{day}.csv"

    def groups(self, day: str) -> Path:
        return self.data / "groups" / f"{day}.csv"

    def rejected(self, day: str) -> Path:
        return self.data / "rejected" / f"{day}.csv"

    @property
    def parent(self) -> Path:
        return self.data / "parent"

    @property
    def parent_model(self) -> Path:
        return self.parent / self.model.name

    @property
    def parent_predictions(self) -> Path:
        return self.parent / self.predictions.name

    # What the stages make.
    @property
    def manifests(self) -> Path:
        return self.data / "manifests"

    def manifest(self, day: str) -> Path:
        return self.manifests / f"{day}.csv"

    def looks(self, day: str) -> Path:
        return self.data / "looks" / f"{day}.csv"

    @property
    def weights(self) -> Path:
        return self.data / "weights.csv"

    @property
    def replay(self) -> Path:
        return self.data / "replay.csv"

    @property
    def shares(self) -> Path:
        return self.data / "shares.csv"

    @property
    def model(self) -> Path:
        return self.data / "model.safetensors"

    @property
    def provenance(self) -> Path:
        return self.data / "provenance.json"

    @property
    def predictions(self) -> Path:
        return self.data / "predictions.csv"

    @property
    def evaluations(self) -> Path:
        return self.data / "evaluations"

    def evaluation(self, day: str) -> Path:
        return self.evaluations / f"{day}.csv"

    def gate(self, day: str) -> Path:
        return self.data / "gates" / f"{day}.csv"

    def plot(self, name: str) -> Path:
        return self.data / "plots" / f"{name}.csv"

    # What can be made again, and is kept by nobody.
    def backtest(self, name: str) -> Path:
        return self.data / "backtest" / f"{name}.csv"

    def audit(self, day: str) -> Path:
        return self.data / "audit" / f"{day}.csv"

    def audit_page(self, day: str) -> Path:
        return self.data / "audit" / f"{day}.html"

    def undone(self, name: str) -> Path:
        return self.data / "undone" / name

    @property
    def backtest_curves(self) -> Path:
        return self.data / "backtest" / "curves.png"

    def report(self, day: str) -> Path:
        return self.data / "reports" / f"{day}.html"

    # What belongs to this machine only.
    @property
    def scratch(self) -> Path:
        return self.root / ".dvc" / "tmp" / "dayfold"

    @property
    def journal(self) -> Path:
        return self.scratch / "journal.json"

    @property
    def ledger_cache(self) -> Path:
        return self.scratch / "ledger"

    @property
    def known_figures(self) -> Path:
        return self.scratch / "figures.json"

    @property
    def remarks(self) -> Path:
        return self.scratch / "remarks.csv"

    def moved(self, day: str) -> Path:
        return self.scratch / "moved" / f"{day}.csv"

    @property
    def settled_mark(self) -> Path:
        return self.scratch / "settled"

    @property
    def checkpoints(self) -> Path:
        return self.scratch / "checkpoints"

    @property
    def activations(self) -> Path:
        return self.scratch / "activations"

    @property
    def backtest_lock(self) -> Path:
        return self.root / ".dvc" / "tmp" / "dayfold-backtest.lock"

    @property
    def cycle_lock(self) -> Path:
        return self.root / ".dvc" / "tmp" / "dayfold.lock"

    @property
    def rebuilt(self) -> Path:
        return self.scratch / "reproduce"

    @property
    def trainer_lock(self) -> Path:
        return self.root / ".dvc" / "tmp" / "dayfold-train.lock"
