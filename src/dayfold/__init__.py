"""dayfold: fold each day's new images into the classifier, and keep every day reproducible."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dayfold.serve.model import Classifier

__version__ = "0.2.0"
__all__ = ["__version__", "load"]


def load(project: str | Path, day: str | None = None) -> "Classifier":
    """Return the model of a project's day, ready to predict: the last that did not fail its gate.

    `project` is the project's folder, `day` a sealed day as YYYY-MM-DD. The answer has `.day`,
    `.classes` and `.predict(images)`; docs/using.md shows it.
    """
    from dayfold.serve import model  # torch, only when it is asked for

    return model.load(project, day)
