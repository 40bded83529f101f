"""A model that people can use: images in, classes with calibrated confidence out."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dayfold.errors import IntakeError
from dayfold.learning import device, network, pixels
from dayfold.learning.network import Model
from dayfold.ledger import decode
from dayfold.project import params as params_file
from dayfold.project.cpus import cpus
from dayfold.project.layout import Project
from dayfold.serve import days

ImageLike = str | Path | Image.Image | NDArray[np.uint8]

CHUNK = 256  # images in memory at a time
BATCH = 64


@dataclass(frozen=True)
class Answer:
    """What the model says of one image.

    `label` is the most probable class, `confidence` its calibrated probability, `sure` whether that
    reaches `predict.threshold` of params.yaml. `probabilities` has every class, the most probable
    first, and sums to 1; retired ones, which are never answered, are in none of these.
    """

    label: str
    confidence: float
    sure: bool
    probabilities: dict[str, float]


class Classifier:
    """One day's model: `day`, its `classes`, and `predict`."""

    def __init__(self, model: Model, *, threshold: float) -> None:
        recipe = model.metadata["recipe"]
        self.day: str = model.metadata["day"]
        self.classes = network.live(model)
        self._outputs, self._retired = model.classes, network.retired(model)
        self.threshold = threshold
        self.temperature = network.temperature(model)
        self.image_size_px: int = recipe["image_size_px"]
        # As it was evaluated, where the hardware can.
        precision = "fp32" if recipe["precision"] == "fp32" else "auto"
        threads = min(torch.get_num_threads(), cpus())  # torch knows no quota
        self._machine = device.chosen(device="auto", precision=precision, threads=threads)
        self._net = network.build(model, self.image_size_px).to(self._machine.device)

    def __repr__(self) -> str:
        return f"<Classifier of {self.day}: {', '.join(self.classes)}>"

    def predict(self, images: ImageLike | Iterable[ImageLike]) -> list[Answer]:
        """Return an answer an image, in order.

        An image is a path, a PIL image or an array, uint8 [h, w, 3] (RGB) or [h, w] (grey); one
        alone is a list of one, an array [n, h, w, 3] is n images. All are decoded and padded as in
        training. Raises IntakeError that lists every image that cannot be used.
        """
        is_one_array = isinstance(images, np.ndarray) and images.ndim < 4
        if is_one_array or isinstance(images, str | Path | Image.Image):
            images = [images]  # type: ignore[list-item]
        answers, problems = [], []
        for answer in self.each(images):
            if isinstance(answer, Answer):
                answers.append(answer)
            else:
                problems.append(answer)
        if problems:
            total = len(problems) + len(answers)
            raise IntakeError(
                f"{len(problems)} of {total} images cannot be used:", problems=problems
            )
        return answers

    def each(self, images: Iterable[ImageLike]) -> Iterator[Answer | str]:
        """Yield, an image, the answer or what is wrong with it, as they are worked out."""
        waiting = iter(images)
        with ThreadPoolExecutor(cpus()) as pool:
            while chunk := list(islice(waiting, CHUNK)):
                with decode.no_warnings():
                    read = list(pool.map(self._read, chunk))
                good = [pixel for pixel in read if isinstance(pixel, torch.Tensor)]
                answers = iter(self._answers(torch.stack(good)) if good else ())
                for one in read:
                    yield one if isinstance(one, str) else next(answers)

    def _read(self, image: ImageLike) -> torch.Tensor | str:
        name = "an image" if isinstance(image, Image.Image | np.ndarray) else str(image)
        try:
            return pixels.squared(_rgb(image), self.image_size_px)
        except OSError as error:
            return f"{name} cannot be read ({error.strerror or error})"
        except IntakeError as error:
            return f"{name} {error.what}"

    def _answers(self, images: torch.Tensor) -> Iterator[Answer]:
        logits = network.outputs(self._net, images, self._machine, batch_size=BATCH)
        chances = (logits / self.temperature).softmax(1)
        order = chances.argsort(dim=1, descending=True, stable=True)
        for row, places in zip(chances.tolist(), order.tolist(), strict=True):
            best = row[places[0]]
            every = {self._outputs[place]: row[place] for place in places}
            for name in self._retired:
                del every[name]
            yield Answer(self._outputs[places[0]], best, best >= self.threshold, every)


def _rgb(image: ImageLike) -> Image.Image:
    """Any image by the one rule that training decodes by; OSError or IntakeError otherwise."""
    if isinstance(image, str | Path):
        return decode.decode(Path(image).read_bytes())
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or not (image.ndim == 2 or image.shape[2:] == (3,)):
            raise IntakeError(
                f"is an array {image.dtype} {list(image.shape)}, not uint8 [h, w, 3] or [h, w]"
            )
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise IntakeError(f"is {type(image).__name__}: neither a path, a PIL image nor an array")
    return decode.rgb(image)


def load(project: str | Path, day: str | None = None) -> Classifier:
    """Return the model of a project's day: by default the last that passed its gate.

    `project` is a folder of the project. Raises CycleError where there is no such project or day,
    ModelError where the model cannot be had.
    """
    found = Project.find(Path(project))
    threshold = params_file.read(found.params).predict.threshold
    return Classifier(days.model_of(found, days.meant(found, day)), threshold=threshold)
