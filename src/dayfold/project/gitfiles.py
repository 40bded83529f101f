"""A project's .gitattributes and .gitignore."""

from pathlib import Path

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


def lacking(root: Path) -> dict[Path, str]:
    """Return what .gitattributes and .gitignore lack of this, by file."""
    wanted = {root / ".gitattributes": ATTRIBUTES, root / ".gitignore": IGNORE}
    return {path: text for path, text in wanted.items() if text not in _read(path)}


def keep(root: Path) -> None:
    """Complete .gitattributes and .gitignore."""
    for path, text in lacking(root).items():
        before = _read(path).strip("\n")
        write_bytes(path, f"{before}\n\n{text}".lstrip("\n").encode())


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
