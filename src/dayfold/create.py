"""A new project from the template, and the origin that its first day starts from."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path

from dayfold.errors import CycleError, ToolError
from dayfold.ledger.intake.workers import cpus
from dayfold.project import params as params_file
from dayfold.project import vcs
from dayfold.project.files import json_bytes, write_bytes
from dayfold.project.layout import ORIGIN, UNOPENED, Project
from dayfold.project.params import Params

# The very files of the repository's own project; the wheel carries them under dayfold/template.
SHARED = (
    "dvc.yaml",
    "params.yaml",
    ".dvc/plots",
    "data/.gitignore",
    "data/images/.gitignore",
    "data/manifests/origin.csv",
)
# No network beside one's own remotes. Links save a copy of every image and model; no symlinks, as
# images are never read through one.
DVC_CONFIG = """\
[core]
    analytics = false
    check_update = false
[cache]
    type = "reflink,hardlink,copy"
"""


@contextmanager
def _template() -> Iterator[tuple[Path, Path]]:
    """The folder of the shared files and the folder of the project's own README."""
    with as_file(files("dayfold") / "template") as own:
        packaged = (own / "dvc.yaml").is_file()
        yield (own if packaged else Path(__file__).parents[2]), own


def init(folder: Path, *, weights: str, classes: Sequence[str], image_size_px: int | None) -> None:
    """Make a project in an empty or new folder: git, DVC, the template, the origin; one commit.

    Raises CycleError where the folder is in use, ModelError where the weights cannot be had; then
    nothing is left behind.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CycleError(f"{folder} is not an empty folder.", mend="name a new one")
    if weights not in ("imagenet", "random"):
        weights = str(Path(weights).absolute())
    folder = folder.resolve()
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _fill(Project(folder), weights, classes, image_size_px)
    except BaseException:
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in made:
            path.rmdir()
        raise


def _fill(
    project: Project, weights: str, classes: Sequence[str], image_size_px: int | None
) -> None:
    root = project.root
    vcs.git(root, "init", "--quiet")
    require_identity(root)
    vcs.dvc(root, "init", "--quiet")
    with _template() as (shared, own):
        for name in SHARED:
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (shared / name).is_dir():
                shutil.copytree(shared / name, target)
            else:
                shutil.copyfile(shared / name, target)
        shutil.copyfile(own / "README.md", root / "README.md")
        shutil.copyfile(own / "gitignore", root / ".gitignore")
    changes: dict[str, object] = {
        "day": UNOPENED,
        "parent": ORIGIN,
        "origin.weights": weights,
        "origin.classes": list(classes),
        # Another count gives other bits: this machine's is pinned once.
        "train.threads": cpus(),
    }
    if image_size_px is not None:
        changes["train.image_size_px"] = image_size_px
    params_file.edit(project.params, changes)
    (root / ".dvc" / "config").write_text(DVC_CONFIG, encoding="utf-8")
    # So that `dvc metrics diff` has something to compare the first day with.
    write_bytes(project.metrics, json_bytes({}))
    make_origin(project, params_file.read(project.params))
    vcs.dvc(root, "add", "--quiet", project.name(project.parent))
    vcs.git(root, "add", "--all")
    vcs.git(root, "commit", "--quiet", "--message", "Begin a dayfold project")


def make_origin(project: Project, params: Params) -> None:
    """Write data/parent of the first day: the origin's model, and no predictions."""
    from dayfold.learning import origin

    given = params.origin
    origin.write(project, given.weights, seed=params.seed, classes=given.classes)


def require_identity(root: Path) -> None:
    """Raise ToolError unless git knows who commits."""
    if not vcs.git_says(root, "var", "GIT_COMMITTER_IDENT"):
        raise ToolError(
            "git does not know who you are, so it cannot commit.",
            mend='git config --global user.name "…" && git config --global user.email "…"',
        )
