"""params.yaml and dvc.yaml of an older version.

Sealed days are read as they are: each has the params.yaml of its own commit.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from dayfold.errors import ParamsError
from dayfold.project import yaml_file
from dayfold.project.files import dotted, write_bytes
from dayfold.project.layout import STAGES, Project

OLDER = ("0.1.0",)  # versions whose files are brought up to date here
FIX = "dayfold check --fix"


@contextmanager
def template() -> Iterator[tuple[Path, Path]]:
    """The folder of the files that every project begins with, and that of its own README."""
    with as_file(files("dayfold") / "template") as own:
        packaged = (own / "dvc.yaml").is_file()
        yield (own if packaged else Path(__file__).parents[3]), own


def needed(project: Project) -> bool:
    """Return whether params.yaml is one of an older version."""
    try:
        values = yaml_file.load(project.params)[1]
    except ParamsError:
        return False
    return isinstance(values, dict) and values.get("dayfold") in OLDER


def apply(project: Project) -> None:
    """Write this version's params.yaml, with the values of the old one, and its dvc.yaml.

    Raises ParamsError where dvc.yaml has stages of a person's own.
    """
    old = dotted(yaml_file.load(project.params)[1])
    stages = yaml_file.load(project.dvc_yaml)[1].get("stages", {})
    if own := sorted(set(stages) - set(STAGES)):
        raise ParamsError(
            f"{project.dvc_yaml.name} has stages of your own: {', '.join(own)}.",
            hint="move them into a dvc.yaml of their own, then run the command again",
        )
    with template() as (shared, _):
        text, pipeline = ((shared / f"{name}.yaml").read_bytes() for name in ("params", "dvc"))
    known = dotted(yaml_file.parse(text.decode(), project.params.name)[1])
    kept = {key: value for key, value in old.items() if key in known and key != "dayfold"}
    write_bytes(project.params, text)
    yaml_file.edit(project.params, {**kept, **_renamed(old)})
    write_bytes(project.dvc_yaml, pipeline)


def _renamed(old: Mapping[str, Any]) -> dict[str, object]:
    """What keys of 0.1.0 come to that have another name and value now."""
    new: dict[str, object] = {}
    epochs, each = old.get("train.epochs"), old.get("train.updates_per_epoch")
    if isinstance(epochs, int) and isinstance(each, int):
        new["train.updates"] = epochs * each
    versions, half_life = old.get("weights.recent_versions"), old.get("weights.half_life_versions")
    if old.get("weights.schedule") == "exponential" and isinstance(half_life, float):
        # The straight line that is half way to base at the same age.
        versions = max(1, round(2 * half_life))
    if versions is not None:
        new["weights.versions"] = versions
    return new
