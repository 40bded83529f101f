"""What a project tells git about its files: keep their bytes as they are, and never hide them."""

from contextlib import suppress
from pathlib import Path

from dayfold.errors import ToolError
from dayfold.project import vcs
from dayfold.project.files import write_bytes

# What dayfold and DVC hash, or compare with what was sealed.
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
# `-text` stands above core.autocrlf, core.eol and the attributes of a person's own; so do the
# others above filters that such attributes name. A macro would be shorter, but git reads macros at
# the top of a repository only. (`-working-tree-encoding` is an error, so it is unset with `!`.)
ATTRIBUTES = "\n".join(
    [
        "# dayfold and DVC hash these files: their bytes stay as they are in every clone.",
        *(f"{name} -text -ident -filter !working-tree-encoding" for name in _AS_IT_IS),
        "",
    ]
)
# Without a slash at the end where DVC asks about a folder that is not there yet.
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
# One of every kind of file that git keeps; the day need not be there.
_KINDS = (
    ".dvc/config",
    ".dvcignore",
    ".gitattributes",
    "data/.gitignore",
    "data/images/2000-01-01.dvc",
    "data/manifests/2000-01-01.csv",
    "data/metrics/day.json",
    "data/parent.dvc",
    "data/provenance.json",
    "dvc.lock",
    "dvc.yaml",
    "metrics.json",
    "params.yaml",
)
_CHANGING = ("text", "ident", "filter", "working-tree-encoding")


def changed_by_git(root: Path) -> list[str]:
    """The kinds of files whose bytes git may change on their way in or out."""
    said = vcs.split(vcs.git(root, "check-attr", "-z", *_CHANGING, "--", *_KINDS))
    found = {
        name
        for name, attribute, value in zip(said[::3], said[1::3], said[2::3], strict=True)
        if value != "unset" and (attribute == "text" or value != "unspecified")
    }
    return sorted(found)


def hidden(root: Path) -> list[str]:
    """The kinds of files that git ignores."""
    with suppress(ToolError):  # none is
        return vcs.git(root, "check-ignore", "--no-index", "--", *_KINDS).split()
    return []


def keep(root: Path) -> None:
    """Complete .gitattributes and .gitignore."""
    if changed_by_git(root):
        _append(root / ".gitattributes", ATTRIBUTES)
    if hidden(root):
        _append(root / ".gitignore", IGNORE)


def _append(path: Path, text: str) -> None:
    before = path.read_bytes().rstrip(b"\n") + b"\n\n" if path.exists() else b""
    write_bytes(path, before.lstrip(b"\n") + text.encode())
