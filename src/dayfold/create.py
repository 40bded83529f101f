"""A new project and its origin."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dayfold.errors import CycleError, ToolError
from dayfold.figures import evidence
from dayfold.project import params as params_file
from dayfold.project import storage, template, vcs
from dayfold.project.console import ask, say
from dayfold.project.cpus import cpus
from dayfold.project.files import json_bytes, write_bytes
from dayfold.project.layout import ORIGIN, UNOPENED, Project, check_path
from dayfold.project.params import NETWORK, Params

# Files of the repository's own project; the wheel has copies under dayfold/template.
SHARED = (
    "dvc.yaml",
    "params.yaml",
    ".dvc/plots",
    "data/.gitignore",
    "data/images/.gitignore",
    "data/manifests/origin.csv",
)
BRANCH = "main"  # not init.defaultBranch, as docs and jobs name this branch
REMOTE = "store"  # the name of the DVC remote that `init --remote` sets up
# DVC contacts no server but the remotes. Links save a second copy of every image and model.
# Symlinks are left out, because images are never read through one.
DVC_CONFIG = """\
[core]
    analytics = false
    check_update = false
[cache]
    type = "reflink,hardlink,copy"
"""


@dataclass(frozen=True)
class Options:
    """The options of `dayfold init` (docs/cli.md); `classes` names the rows of a file's head."""

    weights: str
    classes: Sequence[str] = ()
    image_size_px: int | None = None
    remote: str = ""
    yes: bool = False
    group: str = ""
    network: str = NETWORK


def init(folder: Path, options: Options) -> None:
    """Make a project in an empty or new folder: git, DVC, the template, the origin; one commit.

    Raises CycleError if the folder is in use, is inside another repository without consent, or DVC
    rejects the remote; ModelError if the weights cannot be read. In these cases nothing is left
    behind.
    """
    if (folder / ".git").exists():
        hint = "name a new folder; to share the project: git remote add origin URL in it"
        raise CycleError(f"{folder} is a git repository already.", hint=hint)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CycleError(f"{folder} is not an empty folder.", hint="name a new one")
    given = {"data.group": options.group, "origin.network": options.network}
    params_file.with_changes(params_file.read(template.shared() / "params.yaml"), given)
    folder = folder.resolve()
    check_path(folder)
    _check_outer(folder, options)
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with vcs.dvc_ready(folder):
            _fill(Project(folder), options)
    except BaseException:
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in created:
            path.rmdir()
        raise


def _check_outer(folder: Path, options: Options) -> None:
    above = next(path for path in folder.parents if path.is_dir())
    try:
        outer = vcs.git(above, "rev-parse", "--show-toplevel").strip()
    except ToolError:
        return  # not in a repository
    if vcs.git_succeeds(above, "check-ignore", "--quiet", "--", f"{folder}/"):
        say(f"{folder} is ignored by the git repository {outer}; it gets a repository of its own")
        return
    inside = folder.relative_to(outer).as_posix()
    say(
        f"{folder} is inside the git repository {outer}.\n"
        "The project gets a repository of its own in it. The outer one tracks none of its files: "
        f"it sees a nested repository.\nTo ignore it there: add /{inside}/ to {outer}/.gitignore"
    )
    hint = "name a folder outside of it, or confirm it: dayfold init … --yes"
    ask("Make the project there?", yes=options.yes, hint=hint)


def _fill(project: Project, options: Options) -> None:
    root, weights = project.root, options.weights
    if weights not in ("imagenet", "random"):
        weights = str(Path(weights).absolute())
    say(f"git, with the branch {BRANCH}, and DVC")
    # DVC reads neither sha256 repositories nor reftables, which user settings may ask for.
    kind = {"GIT_DEFAULT_HASH": "sha1", "GIT_DEFAULT_REF_FORMAT": "files"}
    vcs.git(root, "init", "--quiet", f"--initial-branch={BRANCH}", more=kind)
    for name, value in vcs.READABLE_INDEX.items():  # for a person's own git, too
        vcs.git(root, "config", name, value)
    require_identity(root)
    # Before `dvc init`, which fails if the user's own ignore file hides .dvc.
    write_bytes(root / ".gitignore", f"{template.IGNORED}\n{template.IGNORE}".encode())
    write_bytes(root / ".gitattributes", template.ATTRIBUTES.encode())
    vcs.dvc(root, "init")
    (root / ".dvc" / "config").write_text(DVC_CONFIG, encoding="utf-8")
    if options.remote:
        set_remote(root, options.remote)
    for name in SHARED:
        source = template.shared() / name
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, root / name)
    shutil.copyfile(template.OWN / "README.md", root / "README.md")
    changes: dict[str, object] = {
        "day": UNOPENED,
        "parent": ORIGIN,
        "origin.network": options.network,
        "origin.weights": weights,
        "origin.classes": list(options.classes),
        "data.group": options.group,
        # Pinned, because a different number of threads gives different bits.
        "train.threads": cpus(),
    }
    if options.image_size_px is not None:
        changes["train.image_size_px"] = options.image_size_px
    params_file.edit(project.params, changes)
    # `dvc metrics diff` compares the first day with it.
    write_bytes(project.metrics, json_bytes({}))
    params = params_file.read(project.params)
    make_origin(project, params)
    if options.classes:
        say(evidence.no_image(options.classes))
    from dayfold.learning import speed

    say(f"precision: {speed.pin_precision(project, params)}")
    vcs.dvc(root, "add", project.name(project.parent))
    vcs.git(root, "add", "--all")
    vcs.git(root, "commit", "--quiet", "--message", "Begin a dayfold project")


def set_remote(root: Path, url: str) -> None:
    """Make a URL or a folder DVC's default remote; CycleError where DVC cannot use it."""
    url = storage.folder_of_url(url) or url
    place = url if "://" in url else str(Path(url).expanduser().absolute())
    say(f"DVC: images and models are shared through {place}")
    try:
        vcs.dvc(root, "remote", "add", "--default", REMOTE, place)
        # `dvc version` fails if a package for a configured remote is missing.
        vcs.dvc(root, "version")
    except ToolError as error:
        raise CycleError(
            f"DVC cannot use {url} as a remote.",
            problems=error.problems,
            hint="give a folder or a URL such as s3://bucket/path or ssh://host/path; "
            "install what DVC lacks for it with pip",
        ) from None


def make_origin(project: Project, params: Params) -> None:
    """Write data/parent of the first day: the origin's model, and no predictions."""
    given = params.origin
    say(f"weights: {given.weights}, {given.network}; loading PyTorch takes some seconds")
    from dayfold.learning import origin

    origin.write(project, origin.make(seed=params.seed, **given.model_dump()))


def require_identity(root: Path) -> None:
    if not vcs.git_succeeds(root, "var", "GIT_COMMITTER_IDENT"):
        hint = 'git config --global user.name "…" && git config --global user.email "…"'
        raise ToolError("git does not know who you are, so it cannot commit.", hint=hint)
