"""What lies beside an exported model: how to call it, in words that need no dayfold."""

from dayfold.learning import network
from dayfold.learning.network import Model

_CALLS = {
    "onnx": """\
import json
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
probabilities = session.run(None, {{"images": images}})[0]""",
    "torchscript": """\
import json
import torch

inside = {{"dayfold.json": ""}}
model = torch.jit.load("{file}", _extra_files=inside)
classes = json.loads(inside["dayfold.json"])["classes"]
probabilities = model(torch.from_numpy(images)).numpy()""",
    "safetensors": """\
import json
import safetensors.torch
import torch
from safetensors import safe_open
from torchvision.models import resnet18

with safe_open("{file}", framework="pt") as file:
    inside = json.loads(file.metadata()["dayfold"])
classes = inside["classes"]
model = resnet18(num_classes=len(classes)).eval()
model.load_state_dict(safetensors.torch.load_file("{file}"))
scaled = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
with torch.inference_mode():
    logits = model((scaled - mean) / deviation)
probabilities = (logits / inside["temperature"]).softmax(1).numpy()""",
}

_INSIDE = {
    "onnx": "Scaling, normalisation, softmax and temperature are inside the graph.",
    "torchscript": "Scaling, normalisation, softmax and temperature are inside the module. PyTorch "
    "calls TorchScript deprecated: prefer ONNX where you can.",
    "safetensors": "The file holds a torchvision ResNet18's weights and, under the key `dayfold` "
    "of its header, everything else: it is the very file that the project keeps. "
    "Normalisation and temperature are applied outside it, as shown.",
}


def readme(file: str, form: str, model: Model, *, said: str) -> str:
    """Return the README of an exported model: its inputs, its outputs, a program that calls it."""
    size = model.metadata["recipe"]["image_size_px"]
    day = model.metadata["day"]
    gone = network.retired(model)
    classes = "\n".join(
        f"{place}. `{name}`{' (retired: its probability is 0)' * (name in gone)}"
        for place, name in enumerate(model.classes)
    )
    return f"""\
# {file}: the model of {day}

{_INSIDE[form]}

## Input

`images`: uint8 [n, {size}, {size}, 3], RGB, values 0..255. An image of another size is padded with
black to a square in its middle and resized (bicubic) to {size} x {size}; EXIF orientation is
applied, alpha composited on black, 16-bit grey scaled to 8 bits. The model is made for this size.

## Output

`probabilities`: float32 [n, {len(model.classes)}], a row an image, calibrated with temperature
{network.temperature(model):g}; the columns, from 0, are the classes

{classes}

## In Python

```python
import numpy as np
from PIL import Image, ImageOps

image = ImageOps.exif_transpose(Image.open("scan.png")).convert("RGB")
images = np.array(ImageOps.pad(image, ({size}, {size})))[None]

{_CALLS[form].format(file=file)}
print(classes[probabilities[0].argmax()], probabilities[0].max())
```

## Checked

{said}
"""


def checked(images: int, held: int, noise: bool, difference: float) -> str:
    """Say what the self-check found."""
    of = f"{images} images of noise (none of the {held} held-out images is here)"
    if not noise:
        of = f"{images} of {held} held-out images"
    return (
        f"Checked on {of}: no probability is more than {difference:.1e} off the model's own in "
        "fp32."
    )


def precision(agreed: int, images: int, evaluated: str) -> str:
    """Say what another precision than the evaluation's makes of the answers."""
    return (
        f"The figures were measured in {evaluated}: there the model gives the same class on "
        f"{agreed} of {images} images."
    )
