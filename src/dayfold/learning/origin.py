"""The model that the first day starts from: ImageNet's, a random one, or a team's own."""

import urllib.error
import urllib.request
from collections.abc import Sequence
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

# torchvision's ResNet18_Weights.IMAGENET1K_V1. Its own loader checks 8 digits of the hash, and
# those only when it downloads.
IMAGENET_URL = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
IMAGENET_SHA256 = "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"
TIMEOUT_SECONDS = 15


def write(project: Project, weights: str, *, seed: int, classes: Sequence[str]) -> None:
    """Write the parent of the first day: the origin's model, and no predictions."""
    model = make(weights, seed=seed, classes=classes)
    from dayfold.learning import network

    tables.write(project.parent_predictions, Prediction, [])
    # Last: where the model is, the origin is whole.
    network.save(project.parent_model, model.state, model.metadata)


def make(weights: str, *, seed: int, classes: Sequence[str]) -> "Model":
    """Return the origin for `weights`: "imagenet", "random" or the path of a file of weights.

    `classes` names the rows of the file's head; without it the head is dropped. Raises ModelError
    where the file does not fit or ImageNet's weights cannot be had.
    """
    if classes and weights in ("imagenet", "random"):
        raise ModelError(f"Classes name the rows of a file's head; {weights} weights have none.")
    if weights == "imagenet":
        return _imagenet()
    from dayfold.learning import network

    if weights == "random":
        return network.random_origin(seed)
    state = network.read_foreign(Path(weights))
    return network.from_state_dict(state, classes, Path(weights).name)


def _imagenet() -> "Model":
    """Download, compare with the full sha256, and only then parse."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "resnet18.pth")
        try:
            with urllib.request.urlopen(IMAGENET_URL, timeout=TIMEOUT_SECONDS) as answer:
                path.write_bytes(answer.read())
        except (urllib.error.URLError, OSError) as error:
            raise ModelError(
                f"ImageNet's weights cannot be downloaded from {IMAGENET_URL} "
                f"({getattr(error, 'reason', error)}).",
                mend="fetch that file where there is a network and give it as --weights FILE (in "
                "params.yaml: origin.weights), or start from random ones: --weights random",
            ) from None
        if sha256_file(path) != IMAGENET_SHA256:
            raise ModelError(
                f"{IMAGENET_URL} is not the file that it should be (sha256 "
                f"{sha256_file(path)[:12]}…, expected {IMAGENET_SHA256[:12]}…); it was not opened."
            )
        from dayfold.learning import network

        return network.from_state_dict(network.read_foreign(path), (), "imagenet")
