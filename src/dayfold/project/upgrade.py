"""What an older version left in params.yaml and dvc.yaml, and how both are brought up to date.

Sealed days are read as they are: each has the params.yaml of its own commit.
"""

from pathlib import Path
from typing import Any

from dayfold import __version__
from dayfold.errors import ParamsError
from dayfold.project import yaml_file
from dayfold.project.files import dotted, write_bytes
from dayfold.project.layout import Project

OLDER = ("0.1.0",)  # versions whose files are brought up to date here
# Keys that are params no longer: constants now, options that were worth nothing, or renamed.
REMOVED = (
    "data.split.train",
    "data.min_side_px",
    "data.frames",
    "data.near_duplicate_bits",
    "weights.schedule",
    "weights.recent_versions",
    "weights.half_life_versions",
    "replay.minimum_per_class",
    "replay.hard_share",
    "train.epochs",
    "train.updates_per_epoch",
    "train.warm_up",
    "train.weight_decay",
    "train.label_smoothing",
    "train.loss",
    "train.distill_temperature",
    "train.shrink",
    "train.perturb",
    "train.batch_norm_images",
    "train.frozen_variants",
    "evaluate.batch_size",
    "checkpoint.minutes",
)
# What dvc.yaml names since 0.2.0: each after a line that is there, and the lines that belong to it.
ADDED = (
    (
        "      - metrics.json:\n          cache: false\n",
        "      - data/metrics/day.json:\n          cache: false\n"
        "      - data/metrics/classes.json:\n          cache: false\n",
    ),
    (
        "      - data/evaluations/${day}.csv:\n          cache: false\n",
        "      - data/unknown/${day}.csv:\n          cache: false\n"
        "      - data/plots/unlike.csv:\n          cache: false\n",
    ),
    ("      - data/evaluations\n", "      - data/unknown/${day}.csv\n"),
)
KNOWN_SHARE = "predict.known_share"
# Params that are new since 0.2.0: each after one that is there, and its line.
NEW = {
    "origin.network": (
        "origin.weights",
        "  network: resnet18        # resnet18, resnet34, resnet50: torchvision's\n",
    ),
    KNOWN_SHARE: (
        "predict.threshold",
        "  known_share: 0.95        # part of known classes' images that count as known\n",
    ),
}
ASKED = "    params: [dayfold, evaluate"
GONE = "is no param any more"
FIX = "dayfold check --fix"


def needed(project: Project) -> bool:
    """Return whether params.yaml or dvc.yaml has what only an older version knows."""
    try:
        values = yaml_file.load(project.params)[1]
    except ParamsError:
        return False
    found = dotted(values) if isinstance(values, dict) else {}
    is_old = found.get("dayfold") in OLDER or any(key in found for key in REMOVED)
    return is_old or _pipeline(project) != _text(project.dvc_yaml)


def apply(project: Project) -> None:
    """Take out what is no param any more, and keep all else.

    Raises ParamsError where a hand is needed.
    """
    node, values = yaml_file.load(project.params)
    lines = project.params.read_text(encoding="utf-8").splitlines(keepends=True)
    before = dotted(values)
    new = _renamed(before)
    for key in filter(before.__contains__, REMOVED):
        at = yaml_file.find(node, key.split("."))[0] - 1
        indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
        lines[at] = f"{indent}{new[key]}\n" if key in new else ""
        if key == "checkpoint.minutes":
            lines[yaml_file.find(node, ["checkpoint"])[0] - 1] = ""
    for key, (above, line) in NEW.items():
        if key not in before and above in before:
            lines[yaml_file.find(node, above.split("."))[0] - 1] += line
    text = "".join(lines)
    after = dotted(yaml_file.parse(text, project.params.name)[1])
    kept = {key: value for key, value in before.items() if key not in (*REMOVED, "dayfold")}
    if {**after, **kept} != after or any(key in after for key in REMOVED):
        raise ParamsError(
            f"{project.params.name} cannot be brought up to date line by line.",
            problems=[key for key in REMOVED if key in before],
            hint="take these keys out by hand; docs/params.md lists those that there are",
        )
    write_bytes(project.params, text.encode())
    if before.get("dayfold") in OLDER:
        yaml_file.edit(project.params, {"dayfold": __version__})
    if project.dvc_yaml.exists():
        write_bytes(project.dvc_yaml, _pipeline(project).encode())


def _renamed(old: dict[str, Any]) -> dict[str, str]:
    """The lines in the place of old keys that have another name and value now."""
    new = {}
    epochs, each = old.get("train.epochs"), old.get("train.updates_per_epoch")
    if isinstance(epochs, int) and isinstance(each, int):
        new["train.epochs"] = f"updates: {epochs * each:<16}# a day, 1 or more"
    versions, half_life = old.get("weights.recent_versions"), old.get("weights.half_life_versions")
    if old.get("weights.schedule") == "exponential" and isinstance(half_life, float):
        # The straight line that is half way to base at the same age.
        versions = max(1, round(2 * half_life))
    new["weights.recent_versions"] = (
        f"versions: {versions!s:<15}# age, 1 or more, at which recent has fallen to base"
    )
    return new


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _pipeline(project: Project) -> str:
    """The text of dvc.yaml without params that are none any more, and with what stages make now."""
    lines = _text(project.dvc_yaml).splitlines(keepends=True)
    text = "".join(line for line in lines if line.strip().removeprefix("- ") not in REMOVED)
    for after, more in ADDED:
        if more not in text:
            text = text.replace(after, after + more)
    return text.replace(f"{ASKED}]", f"{ASKED}, {KNOWN_SHARE}]")
