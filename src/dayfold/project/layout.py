"""Every path of a project, once."""

import re
from datetime import date
from functools import partialmethod
from pathlib import Path

from dayfold.errors import CycleError

ORIGIN = "origin"  # the parent of the first day
UNOPENED = "none"  # the day of a project without days
LOG_DAYS = 30  # shown by `dayfold log` by default
STAGES = ("snapshot", "weights", "replay", "train", "evaluate", "curve")  # in order

# What a day makes, in git: if the working tree differs from the tag, the day was made again.
DAY_PATHS = (
    "dvc.lock",
    "metrics.json",
    "data/corrections",
    "data/manifests",
    "data/evaluations",
    "data/gates",
    "data/groups",
    "data/looks",
    "data/metrics",
    "data/plots",
    "data/provenance.json",
    "data/unknown",
)
TRACKED_IMAGES = ":(glob)data/images/*.dvc"  # a pathspec of git

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


def is_day(day: str) -> bool:
    """Return whether `day` is a date as YYYY-MM-DD; only dates become paths, tags or commands."""
    try:
        return bool(_DAY.fullmatch(day) and date.fromisoformat(day))
    except ValueError:
        return False


def check_day(day: str) -> str:
    """Return `day` if it is a date as YYYY-MM-DD; raise CycleError otherwise."""
    if is_day(day):
        return day
    raise CycleError(f"{day!r} is not a day.", hint="use a date such as 2025-06-04")


def check_path(root: Path) -> None:
    """Raise CycleError if a folder's path has braces, on which DVC fails."""
    if {"{", "}"} & {*str(root)}:
        what = f"DVC cannot work in {root}: the path has a brace."
        raise CycleError(what, hint="rename the folder, or use another one")


class Project:
    """The paths of the project whose top folder is `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # What a person edits or reads.
        self.params = root / "params.yaml"
        self.dvc_yaml = root / "dvc.yaml"
        self.dvc_lock = root / "dvc.lock"
        self.metrics = root / "metrics.json"
        self.data = root / "data"
        self.classes = self.data / "classes" / "map.csv"
        self.figures = self.data / "metrics" / "day.json"
        self.class_figures = self.data / "metrics" / "classes.json"
        # The inputs of a day: the outputs of the one before.
        self.parent = self.data / "parent"
        self.parent_model = self.parent / "model.safetensors"
        self.parent_predictions = self.parent / "predictions.csv"
        # What the stages make.
        self.manifests = self.data / "manifests"
        self.weights = self.data / "weights.csv"
        self.replay = self.data / "replay.csv"
        self.shares = self.data / "shares.csv"
        self.model = self.data / "model.safetensors"
        self.provenance = self.data / "provenance.json"
        self.predictions = self.data / "predictions.csv"
        self.evaluations = self.data / "evaluations"
        self.backtest_curves = self.data / "backtest" / "curves.png"
        # What belongs to this machine only.
        self.scratch = root / ".dvc" / "tmp" / "dayfold"
        self.journal = self.scratch / "journal.json"
        self.remarks = self.scratch / "remarks.csv"
        self.counts = self.scratch / "counts.npz"
        self.cached_history = self.scratch / "history.arrow"
        self.last_checked = self.scratch / "settled.json"
        self.checkpoints = self.scratch / "checkpoints"
        self.activations = self.scratch / "activations"
        self.squares = self.scratch / "squares"
        self.rebuilt = self.scratch / "reproduce"
        self.rebuilt_parent = self.scratch / "reproduce-parent"
        self.backtests = self.scratch / "backtest"
        self.yesterday = root / "yesterday.safetensors"  # kept while the origin is the parent
        self.backtest_lock = root / ".dvc" / "tmp" / "dayfold-backtest.lock"
        self.cycle_lock = root / ".dvc" / "tmp" / "dayfold.lock"
        self.trainer_lock = root / ".dvc" / "tmp" / "dayfold-train.lock"

    @classmethod
    def find(cls, start: Path | None = None) -> "Project":
        """Return the project that contains `start` (the current folder), or raise CycleError."""
        here = (start or Path.cwd()).resolve()
        for folder in (here, *here.parents):
            if (folder / "dvc.yaml").is_file() and (folder / "params.yaml").is_file():
                check_path(folder)
                return cls(folder)
        what = f"No dayfold project in {here} or above it (no dvc.yaml beside a params.yaml)."
        raise CycleError(what, hint="dayfold init my-project && cd my-project")

    def name(self, path: Path) -> str:
        """Return a path as in manifests and messages: relative to the top, with `/`."""
        return path.relative_to(self.root).as_posix()

    def handed_on(self) -> dict[Path, Path]:
        """Return output → its place in the next day's data/parent."""
        return {self.model: self.parent_model, self.predictions: self.parent_predictions}

    def _file(self, name: str, *, folder: str, ending: str = ".csv") -> Path:
        return self.data / folder / f"{name}{ending}"

    # One file or folder for each day or name.
    images = partialmethod(_file, folder="images", ending="")
    tracked = partialmethod(_file, folder="images", ending=".dvc")
    corrections = partialmethod(_file, folder="corrections")
    groups = partialmethod(_file, folder="groups")
    rejected = partialmethod(_file, folder="rejected")
    manifest = partialmethod(_file, folder="manifests")
    looks = partialmethod(_file, folder="looks")
    evaluation = partialmethod(_file, folder="evaluations")
    unknown = partialmethod(_file, folder="unknown")
    gate = partialmethod(_file, folder="gates")
    plot = partialmethod(_file, folder="plots")
    backtest = partialmethod(_file, folder="backtest")
    audit = partialmethod(_file, folder="audit")
    audit_page = partialmethod(_file, folder="audit", ending=".html")
    report = partialmethod(_file, folder="reports", ending=".html")
    undone = partialmethod(_file, folder="undone", ending="")

    def tracked_month(self, day: str) -> Path:
        return self.tracked(day[:7])
