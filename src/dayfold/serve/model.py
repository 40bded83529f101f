"""A sealed day's model as a classifier."""

import math
import shlex
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dayfold.errors import CycleError, IntakeError, ModelError, ToolError
from dayfold.figures import gate
from dayfold.figures.evidence import ENOUGH
from dayfold.learning import device, network
from dayfold.learning.network import Model
from dayfold.ledger import decode
from dayfold.ledger.decode import squared
from dayfold.project import params as params_file
from dayfold.project import pins, storage, vcs
from dayfold.project.console import first_few
from dayfold.project.cpus import cpus
from dayfold.project.files import md5_file
from dayfold.project.layout import Project, check_day
from dayfold.project.params import Predict

ImageLike = str | Path | Image.Image | NDArray[np.uint8]

CHUNK = 256  # images in memory at a time
BATCH = 64


@dataclass(frozen=True)
class Answer:
    """The prediction for one image: the most probable class and its confidence.

    `sure` says whether the `confidence` reaches `predict.threshold`; `Classifier.calibration` says
    whether it is calibrated. `probabilities` has every class but retired ones, the most probable
    first. `distance` is 0 (like the training images) .. 1. `unknown` says whether it is above
    `Classifier.limit`: then the image is of none of the classes.
    """

    label: str
    confidence: float
    sure: bool
    probabilities: dict[str, float]
    distance: float | None
    unknown: bool


class Classifier:
    """One day's model, ready to predict; `calibration` says whether its confidence is calibrated.

    `limit` is the distance above which an image is unknown, or the reason why there is none.
    """

    def __init__(self, model: Model, chosen: Predict) -> None:
        recipe = model.metadata["recipe"]
        self.day: str = model.metadata["day"]
        self.classes, self._outputs, self._novelty = model.live, model.classes, model.novelty
        self.temperature, self.calibration = model.temperature, model.calibration
        self.threshold, self.limit = chosen.threshold, model.limit(chosen.known_share)
        if self.limit == model.metadata.get("no_limit"):  # it gives their number
            self.limit = f"{self.limit}; {ENOUGH} are needed"
        self.image_size_px: int = recipe["image_size_px"]
        # As evaluated, where the hardware has this precision.
        precision = "fp32" if recipe["precision"] == "fp32" else "auto"
        threads = min(torch.get_num_threads(), cpus())  # torch does not see CPU quotas
        self._machine = device.chosen(device="auto", precision=precision, threads=threads)
        net = network.WithFeatures(network.build(model, self.image_size_px))
        self._net = net.to(self._machine.device)

    def predict(self, images: ImageLike | Iterable[ImageLike]) -> list[Answer]:
        """Return an answer for each image, in order.

        An image is a path, a PIL image or an array, uint8 [h, w, 3] (RGB) or [h, w] (grey). A
        single image is taken as a list of one, an array [n, h, w, 3] as n images. All are decoded
        and padded as in training.
        """
        is_one_array = isinstance(images, np.ndarray) and images.ndim < 4
        if is_one_array or isinstance(images, str | Path | Image.Image):
            images = [images]  # type: ignore[list-item]
        results = list(self.each(images))
        if problems := [one for one in results if isinstance(one, str)]:
            what = f"{len(problems)} of {len(results)} images cannot be used:"
            raise IntakeError(what, problems=problems)
        return [one for one in results if isinstance(one, Answer)]

    def each(self, images: Iterable[ImageLike]) -> Iterator[Answer | str]:
        """Yield the answer for each image, or the problem with it, chunk by chunk."""
        waiting = iter(images)
        with ThreadPoolExecutor(cpus()) as pool:
            while chunk := list(islice(waiting, CHUNK)):
                with decode.no_warnings():
                    read = list(pool.map(self._read, chunk))
                good = [pixel for pixel in read if isinstance(pixel, torch.Tensor)]
                answers = iter(self._answers(torch.stack(good)) if good else ())
                for item in read:
                    yield item if isinstance(item, str) else next(answers)

    def _read(self, image: ImageLike) -> torch.Tensor | str:
        name = "an image" if isinstance(image, Image.Image | np.ndarray) else str(image)
        try:
            return torch.from_numpy(squared(_rgb(image), self.image_size_px))
        except OSError as error:
            return f"{name} cannot be read ({error.strerror or error})"
        except IntakeError as error:
            return f"{name} {error.what}"

    def _answers(self, images: torch.Tensor) -> Iterator[Answer]:
        outputs = network.outputs(self._net, images, self._machine, batch_size=BATCH)
        features, logits = self._net.split(outputs)
        probabilities = (logits / self.temperature).softmax(1)
        order = probabilities.argsort(dim=1, descending=True, stable=True)
        distances: list[float | None] = [None] * len(logits)
        if self._novelty:
            distances = self._novelty.distance(features, probabilities).tolist()
        limit = self.limit if isinstance(self.limit, float) else math.inf
        rows = zip(probabilities.tolist(), order.tolist(), distances, strict=True)
        for row, columns, distance in rows:
            ranked = {self._outputs[column]: row[column] for column in columns}
            live = {name: part for name, part in ranked.items() if name in self.classes}
            label, best = next(iter(live.items()))
            unknown = distance is not None and distance > limit
            yield Answer(label, best, best >= self.threshold, live, distance, unknown)


def _rgb(image: ImageLike) -> Image.Image:
    """Return an image as RGB, decoded as in training; OSError or IntakeError where it cannot be."""
    if isinstance(image, str | Path):
        if Path(image).exists() and not Path(image).is_file():
            raise IntakeError("is not a file")  # reading a pipe may never end
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
    """Return the model of a project's day: by default the last that did not fail its gate."""
    found = Project.find(Path(project))
    model = load_model(found, chosen_day(found, day))
    return Classifier(model, params_file.read(found.params).predict)


def chosen_day(project: Project, day: str | None) -> str:
    """Return `day`, else the last sealed day that did not fail its gate; CycleError without one."""
    sealed = vcs.sealed_days(project.root)
    if day is None:
        passed = gate.last_passed(project, sealed)
        if not sealed:
            what = "No day is sealed yet, so there is no model to use."
            raise CycleError(what, hint="dayfold status")
        if passed is None:
            raise CycleError(
                f"None of the {len(sealed)} sealed days passed its gate, so no model is used.",
                hint="dayfold log shows why; to use a day's model anyway: --day",
            )
        return passed
    opened = params_file.read(project.params).day
    if check_day(day) not in (*sealed, opened):
        what = f"There is no model of {day}: it is not a sealed day."
        last = ", ".join(sealed[-3:]) or "none"
        raise CycleError(what, hint=f"the last sealed days are: {last}")
    return day


def describe_choice(project: Project, day: str, named: str | None) -> str:
    """Say which day's model is used and, if nobody `named` a day, why."""
    if named:
        return f"model of {day}"
    later = [one for one in vcs.sealed_days(project.root) if one > day]
    failed = f"; {', '.join(first_few(later))} failed" if later else ""
    verdict = gate.verdict(gate.read(project, day))
    return f"model of {day}, the last day that did not fail its gate ({verdict}){failed}"


def load_model(project: Project, day: str, *, fetch: bool = True) -> Model:
    """Return the model of a sealed day, or the open day's model in data/.

    A sealed day's model is read from data/ if it is there, else from DVC's cache or, with `fetch`,
    from a remote.
    """
    if day not in vcs.sealed_days(project.root):
        model = network.load(project.model) if project.model.exists() else None
        if model is None or model.metadata["day"] != day:
            raise ModelError(f"{day} is open and has no model yet.", hint="dvc repro")
        return model
    name = project.name(project.model)
    pinned = pins.sealed_outputs(project.root, day)[name]
    if project.model.exists() and md5_file(project.model) == pinned:
        return network.load(project.model)
    if not fetch and not storage.object_path(project.root, pinned).is_file():
        raise ModelError(f"The model of {day} is not here.", hint=vcs.TO_FETCH)
    try:
        cached = storage.fetch(project.root, pinned)
    except ToolError as error:
        what = f"The model of {day} is neither in DVC's cache here nor in a remote:"
        raise ModelError(what, problems=error.problems, hint=error.hint) from None
    if md5_file(cached) != pinned:
        raise ModelError(
            f"The model of {day} in DVC's cache is not the one that was sealed.",
            hint=f"remove it, then run the command again: rm -f {shlex.quote(str(cached))}",
        )
    return network.load(cached)
