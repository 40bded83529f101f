"""What an older version left in params.yaml and dvc.yaml, and how both are brought up to date.

Only what the open day reads: sealed days say themselves with which params they were made.
"""

from collections.abc import Iterator
from typing import Any

from dayfold import __version__
from dayfold.errors import ParamsError
from dayfold.project import lined
from dayfold.project.files import write_bytes
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
    "checkpoint",
)
GONE = "is no param any more"
FIX = "dayfold check --fix"


def needed(project: Project) -> bool:
    """Return whether params.yaml or dvc.yaml has what only an older version knows."""
    try:
        _, values = lined.load(project.params)
    except ParamsError:
        return False
    pin = values.get("dayfold") if isinstance(values, dict) else None
    is_older = pin in OLDER and pin != __version__
    return is_older or any(_has(values, key) for key in REMOVED) or bool(_unknown_to_dvc(project))


def apply(project: Project) -> None:
    """Take out what is no param any more, and keep all else; ParamsError where a hand is needed."""
    node, values = lined.load(project.params)
    lines = project.params.read_text(encoding="utf-8").splitlines(keepends=True)
    new = _renamed(values)
    for key in filter(lambda key: _has(values, key), REMOVED):
        at = lined.line_of(node, key.split(".")) - 1
        indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
        lines[at] = f"{indent}{new[key]}\n" if key in new else ""
    if values.get("dayfold") in OLDER:
        at = lined.line_of(node, ["dayfold"]) - 1
        lines[at] = lines[at].replace(values["dayfold"], __version__, 1)
    text = "".join(lines)
    _check(project, values, text)
    write_bytes(project.params, text.encode())
    if unknown := _unknown_to_dvc(project):
        pipeline = project.dvc_yaml.read_text(encoding="utf-8").splitlines(keepends=True)
        left = [line for line in pipeline if line not in unknown]
        write_bytes(project.dvc_yaml, "".join(left).encode())


def _has(values: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


def _renamed(values: Any) -> dict[str, str]:
    """The lines in the place of old keys that have another name and value now."""
    new = {}
    train, weights = values.get("train") or {}, values.get("weights") or {}
    epochs, each = train.get("epochs"), train.get("updates_per_epoch")
    if type(epochs) is int and type(each) is int:
        new["train.epochs"] = f"updates: {epochs * each:<17}# 1 or more, of a day"
    versions, half_life = weights.get("recent_versions"), weights.get("half_life_versions")
    if weights.get("schedule") == "exponential" and isinstance(half_life, float):
        # The straight line that is half way to base at the same age.
        versions = max(1, round(2 * half_life))
    new["weights.recent_versions"] = (
        f"versions: {versions!s:<16}# 1 or more: age at which recent has fallen to base"
    )
    return new


def _check(project: Project, values: Any, text: str) -> None:
    """Raise ParamsError unless the new text has every value of the old one that is a param yet."""
    found = dict(_leaves(lined.parse(text, project.params.name)[1]))
    lost = [
        key
        for key, value in _leaves(values)
        if key not in (*REMOVED, "dayfold") and (key not in found or found[key] != value)
    ]
    if lost or found.keys() & set(REMOVED):
        raise ParamsError(
            f"{project.params.name} cannot be brought up to date line by line.",
            problems=[key for key in REMOVED if _has(values, key)],
            mend="take these keys out by hand; docs/params.md lists those that there are",
        )


def _leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _unknown_to_dvc(project: Project) -> list[str]:
    """The lines of dvc.yaml that name a param which is none any more."""
    if not project.dvc_yaml.exists():
        return []
    lines = project.dvc_yaml.read_text(encoding="utf-8").splitlines(keepends=True)
    return [line for line in lines if line.strip().removeprefix("- ") in REMOVED]
