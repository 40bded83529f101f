"""What a project tells git about its files: keep their bytes as they are, and never hide them."""

from pathlib import Path

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


def converted(root: Path) -> list[str]:
    """The project's files that are as git has them but for their line ends: CRLF for LF."""
    mine = [f":(glob){name.removeprefix('/')}" for name in _AS_IT_IS]
    lines = vcs.split(vcs.git(root, "ls-files", "-z", "--eol", "--", *mine))
    split = (line.partition("\t") for line in lines)
    names = [name for facts, _, name in split if facts.split()[:2] == ["i/lf", "w/crlf"]]
    kept = vcs.blobs(root, [f":./{name}" for name in names])
    return [
        name
        for name in names
        if (root / name).read_bytes().replace(b"\r\n", b"\n") == kept.get(f":./{name}")
    ]


def hidden(root: Path) -> list[str]:
    """The kinds of files that git ignores."""
    words = ("check-ignore", "--quiet", "--no-index", "--")
    return [name for name in _KINDS if vcs.git_says(root, *words, name)]


def keep(root: Path) -> None:
    """Complete .gitattributes and .gitignore, and put back the LF that git made CRLF."""
    for name in converted(root):
        write_bytes(root / name, (root / name).read_bytes().replace(b"\r\n", b"\n"))
    if changed_by_git(root):
        _append(root / ".gitattributes", ATTRIBUTES)
    if hidden(root):
        _append(root / ".gitignore", IGNORE)


def _append(path: Path, text: str) -> None:
    before = path.read_bytes().rstrip(b"\n") + b"\n\n" if path.exists() else b""
    write_bytes(path, before.lstrip(b"\n") + text.encode())
