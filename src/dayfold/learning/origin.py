"""The model that the first day starts from: ImageNet's, a random one, or a team's own."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from dayfold.errors import ModelError
from dayfold.ledger import tables
from dayfold.ledger.tables import Prediction
from dayfold.project.files import sha256_file
from dayfold.project.layout import Project

if TYPE_CHECKING:  # torch is imported when there is something for it to do
    from dayfold.learning.network import Model

Say = Callable[[str], None]


def _silently(_line: str) -> None:
    """Say nothing: what is made takes no time that a person would wonder about."""


# torchvision's ResNet18_Weights.IMAGENET1K_V1. Its own loader checks 8 digits of the hash, and
# those only when it downloads.
IMAGENET_URL = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
IMAGENET_SHA256 = "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"
_MEND = (
    "fetch that file where there is a network and give it as --weights FILE (in params.yaml: "
    "origin.weights), or start from random ones: --weights random"
)


def write(
    project: Project, weights: str, *, seed: int, classes: Sequence[str], say: Say = _silently
) -> None:
    """Write the parent of the first day: the origin's model, and no predictions."""
    model = make(weights, seed=seed, classes=classes, say=say)
    from dayfold.learning import network

    tables.write(project.parent_predictions, Prediction, [])
    # Last: where the model is, the origin is whole.
    network.save(project.parent_model, model.state, model.metadata)


def make(weights: str, *, seed: int, classes: Sequence[str], say: Say = _silently) -> "Model":
    """Return the origin for `weights`: "imagenet", "random" or the path of a file of weights.

    `classes` names the rows of the file's head; without it the head is dropped. Raises ModelError
    where the file does not fit or ImageNet's weights cannot be had.
    """
    if classes and weights in ("imagenet", "random"):
        raise ModelError(f"Classes name the rows of a file's head; {weights} weights have none.")
    if weights == "imagenet":
        return published(IMAGENET_URL, sha256=IMAGENET_SHA256, say=say)
    if weights == "random":
        from dayfold.learning import network

        return network.random_origin(seed)
    from dayfold.learning import foreign

    return foreign.origin(foreign.read(Path(weights)), classes, Path(weights).name)


def _torch_home() -> Path:
    """Where torch keeps what it downloads, by its own rule."""
    caches = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", Path(caches, "torch"))).expanduser()


def published(url: str, *, sha256: str, say: Say) -> "Model":
    """Return the origin from a published file: torchvision's own copy of it, or a download.

    The file's full sha256 is compared before anything of it is parsed.
    """
    from dayfold.learning import download, foreign

    name = url.rpartition("/")[2]
    kept = _torch_home() / "hub" / "checkpoints" / name
    if kept.is_file():
        if sha256_file(kept) == sha256:
            say(f"found in torchvision's cache: {kept}")
            return foreign.origin(foreign.read(kept), (), "imagenet")
        say(f"{kept} is another file than the published one, so it is not used")
    with TemporaryDirectory() as folder:
        path = Path(folder, name)
        download.fetch(url, path, sha256=sha256, what="ImageNet's weights", mend=_MEND, say=say)
        return foreign.origin(foreign.read(path), (), "imagenet")
