"""Export of a day's model, with README."""

import json
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import safetensors.torch
import torch
from numpy.typing import NDArray

from dayfold import draws
from dayfold.errors import CycleError, ModelError, ToolError
from dayfold.figures import day as days
from dayfold.figures.card import card
from dayfold.history import record
from dayfold.learning import network, pixels
from dayfold.learning.network import Model
from dayfold.learning.novelty import NoveltyDetector
from dayfold.ledger import manifest
from dayfold.ledger.manifest import History
from dayfold.project import params as params_file
from dayfold.project.console import Ticker, say
from dayfold.project.files import canonical_json, write_bytes
from dayfold.project.layout import Project
from dayfold.serve import model as models

ENDINGS = {".onnx": "onnx", ".safetensors": "safetensors", ".md": "card"}
CHECKED = 1000  # held-out images at most on which the export is compared
NOISE = 8  # images of noise that are used in a clone without images
TOLERANCE = 1e-4  # of a probability: sums in another order differ
BATCH = 64
OPSET = 17  # of ONNX; every runtime has it since 2022

# [n, size, size, 3] → probabilities [n, classes] and, of ONNX, distances [n]
Run = Callable[[NDArray[np.uint8]], Sequence[NDArray[np.float32]]]


class Deployed(torch.nn.Module):
    """All steps from pixels to probabilities as one graph.

    uint8 [n, size, size, 3], RGB → float32 [n, classes], softmax(logits / temperature); with
    `novelty` also float32 [n], the distances.
    """

    def __init__(
        self, net: torch.nn.Module, temperature: float, novelty: NoveltyDetector | None = None
    ) -> None:
        super().__init__()
        self.net, self.temperature, self.novelty = network.WithFeatures(net), temperature, novelty
        self.eval()  # torch.onnx.export restores the mode of the outermost module
        self.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features, logits = self.net.split(self.net(pixels.normalised(images.permute(0, 3, 1, 2))))
        probabilities = (logits / self.temperature).softmax(1)
        if not self.novelty:
            return (probabilities,)
        return probabilities, self.novelty.distance(features, probabilities)


def form_of(file: Path, form: str | None) -> str:
    found = form or ENDINGS.get(file.suffix, file.suffix)
    if found in ENDINGS.values():
        return found
    hint = "one of these: " + ", ".join(f"{name} ({end})" for end, name in ENDINGS.items())
    raise CycleError(f"{form or file.name} is not a model format.", hint=hint)


def export(project: Project, file: Path, *, day: str | None, form: str) -> list[Path]:
    """Write a day's model, its README and its card, or the card alone; return their paths."""
    named, day = day, models.chosen_day(project, day)
    say(models.describe_choice(project, day, named))
    model = models.load_model(project, day)
    history = manifest.history(project, day)
    limit = model.limit(params_file.read(project.params).predict.known_share)
    text = _card(project, day, model, history, limit)
    if form == "card":
        write_bytes(file, text.encode())
        return [file]
    size = model.metadata["recipe"]["image_size_px"]
    novelty = model.novelty if form == "onnx" else None
    deployed = Deployed(network.build(model, size), model.temperature, novelty)
    with TemporaryDirectory() as folder:
        path = Path(folder, "model")
        run = (_onnx if form == "onnx" else _safetensors)(path, deployed, model)
        checked, data = _check(project, history, model, deployed, run), path.read_bytes()
    say(checked)
    readme = _readme(file.name, form, model, limit, checked=checked)
    written = {
        file: data,
        file.with_name(f"{file.stem}.README.md"): readme.encode(),
        file.with_name(f"{file.stem}.MODEL_CARD.md"): text.encode(),
    }
    for path, content in written.items():
        write_bytes(path, content)
    return list(written)


def _card(project: Project, day: str, model: Model, history: History, limit: float | str) -> str:
    found, erased = days.read(project, day), list[str]()
    if found.is_sealed:
        pinned = list(record.read(project, [day]).values())
        erased = record.erased_inputs(project, history, pinned).get(day, [])
    return card(found, model.live, model.metadata, limit=limit, erased=erased)


def _onnx(path: Path, deployed: Deployed, model: Model) -> Run:
    # With the older exporter, which does not need onnxscript.
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        what = f"The ONNX export needs {error.name}."
        raise ToolError(what, hint="pip install 'dayfold[onnx]'") from None
    outputs, size = ["probabilities"], model.metadata["recipe"]["image_size_px"]
    outputs += ["distance"] * (deployed.novelty is not None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        torch.onnx.export(
            deployed,
            (torch.zeros(2, size, size, 3, dtype=torch.uint8),),
            path,
            input_names=["images"],
            output_names=outputs,
            dynamic_axes={name: {0: "batch"} for name in ("images", *outputs)},
            opset_version=OPSET,
            dynamo=False,
        )
    graph = onnx.load_model(path)
    shape = "images: uint8 [batch, height, width, 3], RGB"
    graph.doc_string = f"{shape}. probabilities: {model.calibration}."
    properties = {
        "classes": json.dumps(list(model.classes), ensure_ascii=False),
        network.METADATA_KEY: canonical_json(dict(model.metadata)),
    }
    onnx.helper.set_model_props(graph, properties)
    onnx.checker.check_model(graph, full_check=True)
    path.write_bytes(graph.SerializeToString())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})


def _safetensors(path: Path, deployed: Deployed, model: Model) -> Run:
    from torchvision.models import get_model  # takes 3 s, and nothing else needs it

    network.save(path, model.state, model.metadata, model.novelty)
    net = get_model(model.network, weights=None, num_classes=len(model.classes))
    state = safetensors.torch.load_file(path)
    net.load_state_dict({name: state[name] for name in net.state_dict()})
    plain = Deployed(net, deployed.temperature)
    return lambda images: _run(plain, images)


def _run(module: torch.nn.Module, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    with torch.inference_mode():
        return [answer.numpy() for answer in module(torch.from_numpy(images))]


def _check(project: Project, history: History, model: Model, deployed: Deployed, run: Run) -> str:
    size, held_out = model.metadata["recipe"]["image_size_px"], history.split(*manifest.HELD_OUT)
    is_here = [(project.root / path).is_file() for path in held_out["path"]]
    here = held_out.filter(pl.Series(is_here, dtype=pl.Boolean))
    rows = here.gather_every(max(1, math.ceil(len(here) / CHECKED)))
    of, difference = f"{len(rows)} of {len(held_out)} held-out images", 0.0
    with Ticker("checking", len(rows), "images") as ticker:
        chunks = pixels.load_in_chunks(project.root, rows, size, ticker.advance)
        if rows.is_empty():
            of = f"{NOISE} images of noise (none of the {len(held_out)} held-out images is here)"
            noise = draws.uniform_array("noise", shape=(NOISE, 3, size, size))
            chunks = iter([torch.from_numpy(noise * 127.5 + 127.5).byte()])
        for chunk in chunks:
            for images in torch.split(chunk, BATCH):
                given = images.permute(0, 2, 3, 1).contiguous().numpy()
                for exported, own in zip(run(given), _run(deployed, given), strict=True):
                    difference = max(difference, float(np.abs(exported - own).max()))
    found = f"Checked on {of}: the largest difference from the model is {difference:.1e} (fp32)."
    if difference > TOLERANCE:
        raise ModelError(f"The exported model differs, so nothing was written. {found}")
    return found


_CALLS = {
    "onnx": """\
import json
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
probabilities, *more = session.run(None, {{"images": images}})""",
    "safetensors": """\
import json
import safetensors.torch
import torch
from safetensors import safe_open
from torchvision.models import {network}
from torchvision.transforms.functional import normalize

with safe_open("{file}", framework="pt") as file:
    inside = json.loads(file.metadata()["dayfold"])
classes = inside["classes"]
model = {network}(num_classes=len(classes)).eval()
state = safetensors.torch.load_file("{file}")
model.load_state_dict({{name: state[name] for name in model.state_dict()}})
pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
with torch.inference_mode():
    logits = model(normalize(pixels, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
probabilities = (logits / inside["temperature"]).softmax(1).numpy()""",
}

_INSIDE = {
    "onnx": "Scaling, normalisation, softmax and temperature are inside the graph.",
    "safetensors": "The file holds the weights of torchvision's {network} and, under the key "
    "`dayfold` of its header, everything else: it is the file that the project keeps. "
    "Normalisation and temperature are applied outside it, as shown.",
}


def _of_unknown(form: str, limit: float | str) -> str:
    if form == "onnx" and isinstance(limit, float):
        return (
            "`distance`: float32 [n], how far the image is from what the model has learnt, 0..1. "
            f"Above {limit:.4f} `dayfold predict` calls an image unknown: of none of these classes."
        )
    why = limit if isinstance(limit, str) else "the distance from them is in the ONNX export only"
    return f"It always picks one of its classes, even for unrelated images: {why}."


def _readme(file: str, form: str, model: Model, limit: float | str, *, checked: str) -> str:
    size, retired = model.metadata["recipe"]["image_size_px"], model.retired
    classes = "\n".join(
        f"{place}. `{name}`{' (retired: its probability is 0)' * (name in retired)}"
        for place, name in enumerate(model.classes)
    )
    return f"""\
# {file}: the model of {model.metadata["day"]}

{_INSIDE[form].format(network=model.network)}

## Input

`images`: uint8 [n, {size}, {size}, 3], RGB, values 0..255. An image of another size is padded with
black to a square in its middle and resized (bicubic) to {size} x {size}; EXIF orientation is
applied, alpha composited on black, 16-bit grey scaled to 8 bits. The model is made for this size.

## Output

`probabilities`: float32 [n, {len(model.classes)}], a row an image. They are
{model.calibration}. The columns, from 0, are the classes

{classes}

{_of_unknown(form, limit)}

## In Python

```python
import numpy as np
from PIL import Image, ImageOps

image = ImageOps.exif_transpose(Image.open("scan.png")).convert("RGB")
images = np.array(ImageOps.pad(image, ({size}, {size})))[None]

{_CALLS[form].format(file=file, network=model.network)}
print(classes[probabilities[0].argmax()], probabilities[0].max())
```

## Checked

{checked}
"""
