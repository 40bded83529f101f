"""The template's files, brought up to date.

Files of sealed days are left as they are: each has the params.yaml of its own commit.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dayfold.errors import ParamsError
from dayfold.project import yaml_file
from dayfold.project.files import dotted, write_bytes
from dayfold.project.layout import STAGES, Project

OLDER = ("0.1.0",)  # versions whose files are brought up to date here
FIX = "dayfold check --fix"
OWN = Path(__file__).parents[1] / "template"  # has the README of a new project


def shared() -> Path:
    """Return the folder of the files that every project begins with; in a wheel it is OWN."""
    return OWN if (OWN / "dvc.yaml").is_file() else Path(__file__).parents[3]


def is_older(project: Project) -> bool:
    try:
        values = yaml_file.load(project.params)[1]
    except ParamsError:
        return False
    return isinstance(values, dict) and values.get("dayfold") in OLDER


def upgrade(project: Project) -> None:
    """Write this version's params.yaml, with the old values, and its dvc.yaml.

    Raises ParamsError if dvc.yaml has other stages.
    """
    old = dotted(yaml_file.load(project.params)[1])
    stages = yaml_file.load(project.dvc_yaml)[1].get("stages", {})
    if own := sorted(set(stages) - set(STAGES)):
        raise ParamsError(
            f"{project.dvc_yaml.name} has stages of your own: {', '.join(own)}.",
            hint="move them into a dvc.yaml of their own, then run the command again",
        )
    text, pipeline = ((shared() / f"{name}.yaml").read_bytes() for name in ("params", "dvc"))
    known = dotted(yaml_file.parse(text.decode(), project.params.name)[1])
    kept = {key: value for key, value in old.items() if key in known and key != "dayfold"}
    write_bytes(project.params, text)
    yaml_file.edit(project.params, {**kept, **_renamed(old)})
    write_bytes(project.dvc_yaml, pipeline)


def _renamed(old: Mapping[str, Any]) -> dict[str, object]:
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


# Files that dayfold and DVC hash, or compare with what was sealed.
_AS_IT_IS = (
    "/.dvc/**",
    "/.dvcignore",
    "/.gitattributes",
    "/.gitignore",
    "/data/**",
    "/dvc.lock",
    "/dvc.yaml",
    "/metrics.json",
    "/params.yaml",
)
# `-text` overrides core.autocrlf, core.eol and the user's own attributes; the others override
# filters in such attributes. A macro would be shorter, but git reads macros only at the top of a
# repository. (`-working-tree-encoding` is an error, so `!` unsets it.)
ATTRIBUTES = "\n".join(
    [
        "# dayfold and DVC hash these files: their bytes stay as they are in every clone.",
        *(f"{name} -text -ident -filter !working-tree-encoding" for name in _AS_IT_IS),
        "",
    ]
)
# What a demo, `dvc plots` and a person put into a project, and git ignores.
IGNORED = "/incoming/\n/forgetting.png\n/dvc_plots/\n/.venv/\n"
# No slash at the end if DVC asks about a folder that does not exist yet.
IGNORE = """\
# What git keeps of a project, whatever the ignore file of a person's own (core.excludesFile) says.
!/.dvc
!/.dvc/.gitignore
!/.dvc/config
!/.dvc/plots/
!/.dvc/plots/*.json
!/.dvcignore
!/.gitattributes
!/.gitignore
!/README.md
!/dvc.lock
!/dvc.yaml
!/metrics.json
!/params.yaml
!/data
!/data/*/
!/data/.gitignore
!/data/*.dvc
!/data/provenance.json
!/data/images/.gitignore
!/data/images/*.dvc
!/data/*/*.csv
!/data/metrics/*.json
"""


def lacking(root: Path) -> dict[Path, str]:
    wanted = {root / ".gitattributes": ATTRIBUTES, root / ".gitignore": IGNORE}
    return {path: text for path, text in wanted.items() if text not in _read(path)}


def complete(root: Path) -> None:
    for path, text in lacking(root).items():
        before = _read(path).strip("\n")
        write_bytes(path, f"{before}\n\n{text}".lstrip("\n").encode())


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
