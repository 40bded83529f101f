"""The first day's model: ImageNet's, random, or yours."""

import http.client
import os
import socket
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import Any

import safetensors.torch
import torch

from dayfold import __version__
from dayfold.errors import ModelError
from dayfold.learning.network import NOVELTY, Model, State, random_origin, save, with_empty_head
from dayfold.learning.resnet import NETWORKS, blank, network_of
from dayfold.ledger import tables
from dayfold.ledger.tables import Prediction
from dayfold.project.console import Ticker, first_few, plural, say
from dayfold.project.files import sha256_file
from dayfold.project.layout import Project
from dayfold.project.params import NETWORK

TIMEOUT_SECONDS = 15  # to wait for the next byte
WAITS_SECONDS = (1.0, 2.0, 4.0, 8.0)  # waits before each new try
RETRIED = {408, 425, 429}  # status codes, besides 500 and above, after which a retry may succeed
PIECE_BYTES = 1 << 16  # bytes read at a time
MB = 1_000_000
# Training scripts store the state dict under one of these keys, beside an optimizer's state.
WRAPPERS = ("state_dict", "model_state_dict", "model")
# A tensor that every network here has once. Wrappers (DataParallel, torch.compile, a class with a
# member for the network) put a prefix before the names of tensors; it ends where this name begins.
LANDMARK = "layer1.0.conv1.weight"


def write(project: Project, model: Model) -> None:
    tables.write(project.parent_predictions, Prediction, [])
    # The model comes last: if it is there, the origin is complete.
    save(project.parent_model, model.state, model.metadata)


def make(weights: str, *, network: str, seed: int, classes: Sequence[str]) -> Model:
    """Return the origin for `weights`: "imagenet", "random" or the path of a file of weights.

    `network` is one of NETWORKS; `classes` names the rows of the file's head; without it the head
    is dropped. Raises ModelError where the file does not fit or ImageNet's weights cannot be had.
    """
    if classes and weights in ("imagenet", "random"):
        raise ModelError(f"Classes name the rows of a file's head; {weights} weights have none.")
    if weights == "imagenet":
        return published(network)
    if weights == "random":
        return random_origin(seed, network)
    return of_state(read(Path(weights)), classes, Path(weights).name, network)


def torch_home() -> Path:
    """Return the folder of torch's downloads, as torch finds it."""
    caches = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", Path(caches, "torch"))).expanduser()


def published(network: str) -> Model:
    """Return the origin of a network's published weights, in torchvision's cache or downloaded."""
    url, sha256 = NETWORKS[network].url, NETWORKS[network].sha256
    name = url.rpartition("/")[2]
    cached = torch_home() / "hub" / "checkpoints" / name
    if cached.is_file():
        if sha256_file(cached) == sha256:
            say(f"found in torchvision's cache: {cached}")
            return of_state(read(cached), (), "imagenet", network)
        say(f"{cached} differs from the published file, so it is not used")
    with TemporaryDirectory() as folder:
        path = Path(folder, name)
        download(url, path)
        if (found := sha256_file(path)) != sha256:
            raise ModelError(
                f"{url} is not the file that it should be (sha256 {found[:12]}…, expected "
                f"{sha256[:12]}…); it was not opened.",
                hint="a proxy or a log-in page may have answered instead: try another network",
            )
        return of_state(read(path), (), "imagenet", network)


def download(url: str, path: Path) -> None:
    """Download ImageNet's weights to `path`; a broken download starts again from the beginning."""
    for number, wait in enumerate((*WAITS_SECONDS, None), start=1):
        try:
            _transfer(url, path)
            return
        except urllib.error.HTTPError as error:
            error.close()
            why = f"the server answers {error.code} {error.reason}"
            is_hopeless = error.code < 500 and error.code not in RETRIED
        except (OSError, http.client.HTTPException) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            why = str(cause) or type(cause).__name__
            is_hopeless = isinstance(cause, socket.gaierror | ConnectionRefusedError)
        if wait is None or is_hopeless:
            tries = "" if is_hopeless else f"; {number} tries"
            raise ModelError(
                f"ImageNet's weights cannot be downloaded from {url} ({why}{tries}).",
                hint="fetch that file where there is a network and give it as --weights FILE (in "
                "params.yaml: origin.weights), or start from random ones: --weights random",
            )
        tries = f"{number + 1} of {len(WAITS_SECONDS) + 1}"
        say(f"the download broke off ({why}); try {tries} in {wait:g} s")
        time.sleep(wait)


def _transfer(url: str, path: Path) -> None:
    headers = {"User-Agent": f"dayfold/{__version__}"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - our own constant
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
        total = int(answer.headers["Content-Length"] or 0)
        say(f"downloading ImageNet's weights, {total / MB:.1f} MB, from {url}")
        received, millions = 0, max(1, round(total / MB))
        with path.open("wb") as file, Ticker("download", millions, "MB") as ticker:
            while piece := answer.read(PIECE_BYTES):
                file.write(piece)
                received += len(piece)
                ticker.so_far(received // MB, millions)
    if received < total:
        raise OSError(f"after {received / MB:.1f} of {total / MB:.1f} MB")


def read(path: Path) -> State:
    """Read a state dict from safetensors or .pt/.pth, without running any code in the file.

    Parameters become plain tensors. The key around a state dict and the prefixes of wrapped
    networks are removed; other tensors are left out, with a message. Raises ModelError if the file
    holds no state dict of tensors.
    """
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if file.read(9)[8:] == b"{":  # the content decides, not the name
                found: Any = safetensors.torch.load_file(path)
            else:
                file.seek(0)
                found = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist.") from None
    except MemoryError:
        raise
    # The readers raise almost any exception on damaged bytes.
    except Exception as error:
        # Leave out torch's advice to run the file's code.
        said = next(iter(str(error).splitlines()), type(error).__name__).partition(". ")[0]
        raise ModelError(
            f"{path} holds no plain tensors: {said}",
            hint="save it with torch.save(model.state_dict(), …) or as safetensors",
        ) from None
    found = _state_dict(found)
    if not isinstance(found, Mapping) or not all(map(_is_plain, found.values())):
        raise ModelError(
            f"{path} holds no state dict of tensors.",
            hint=f"save it with torch.save(model.state_dict(), …), alone or under the key "
            f"{', '.join(WRAPPERS[:-1])} or {WRAPPERS[-1]}",
        )
    prefixes = {str(name).removesuffix(LANDMARK) for name in found if _is_landmark(name)}
    if len(prefixes) > 1:
        raise ModelError(f"{path} holds {LANDMARK} more than once, under several prefixes.")
    prefix = next(iter(prefixes), "")
    if others := [str(name) for name in found if not str(name).startswith(prefix)]:
        count = plural(len(others), "tensor")
        say(f"left out of {path.name}: {count} beside the network, {', '.join(first_few(others))}")
    return {
        str(name).removeprefix(prefix): tensor.detach()
        for name, tensor in found.items()
        # A dayfold model's novelty tensors are not part of the network.
        if str(name).startswith(prefix) and not str(name).startswith(NOVELTY)
    }


def _is_landmark(name: object) -> bool:
    return f".{name}".endswith(f".{LANDMARK}")


def _is_plain(value: object) -> bool:
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        return False
    return not (value.is_meta or value.is_quantized or value.is_complex())


def _state_dict(found: Any) -> Any:
    """Return what is under the keys around a state dict: one of WRAPPERS, or the only network's."""
    while isinstance(found, Mapping):
        inside = {key: one for key, one in found.items() if isinstance(one, Mapping)}
        networks = {key: one for key, one in inside.items() if _has_network(one)}
        keys = [key for some in (networks, inside) for key in WRAPPERS if key in some]
        if not keys and len(networks) == 1:
            keys = [*networks]
        if not keys:
            break
        found = inside[keys[0]]
    return found


def _has_network(found: Mapping[Any, Any]) -> bool:
    within = (one for one in found.values() if isinstance(one, Mapping))
    return any(map(_is_landmark, found)) or any(map(_has_network, within))


def of_state(state: State, classes: Sequence[str], source: str, network: str = NETWORK) -> Model:
    """Return an origin from the state dict of torchvision's network of this name.

    Accepts all that load_state_dict(strict=True) takes: other number types are converted, missing
    counters of batch norms start at 0. The head is kept if `classes` names its rows, and dropped
    otherwise. Raises ModelError that lists what does not fit or is not finite.
    """
    if len(set(classes)) != len(classes) or not all(classes):
        raise ModelError(f"The classes are not distinct names: {', '.join(classes)}.")
    if (found := network_of(state)) not in ("", network):
        raise ModelError(
            f"{source} holds the weights of {found}, not of {network}.",
            hint=f"dayfold init … --network {found} (in params.yaml: origin.network)",
        )
    net = blank(network, max(1, len(classes)))
    expected = net.state_dict()
    if not classes:
        net.fc = torch.nn.Identity()  # type: ignore[assignment]
        state = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    try:
        net.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        of = f" with {plural(len(classes), 'class')}" if classes else ""
        lines = [shorten(line, 300, placeholder=" …") for line in str(error).splitlines()[1:]]
        raise ModelError(
            f"{source} does not hold the weights of torchvision's {network}{of}:",
            problems=first_few(lines),
            hint="if only the head differs: without --classes it is dropped" if classes else "",
        ) from None
    made = {
        name: tensor.detach().to(expected[name].dtype).contiguous()
        for name, tensor in net.state_dict().items()
    }
    problems = [
        f"{name}: {(~tensor.isfinite()).sum()} of {tensor.numel()}"
        for name, tensor in made.items()
        if not tensor.isfinite().all()
    ]
    failed = "its training failed: use the weights of an earlier epoch, or other weights"
    if problems:
        what = f"{source} has weights that are not finite (NaN or infinite):"
        raise ModelError(what, problems=first_few(problems), hint=failed)
    net.load_state_dict(made, strict=True, assign=True)
    with torch.inference_mode():  # for example a variance below zero makes every image NaN
        answer = net.eval()(torch.linspace(0, 1, 3 * 64 * 64).reshape(1, 3, 64, 64))
    if not answer.isfinite().all():
        raise ModelError(f"{source} gives NaN or infinite numbers for an image.", hint=failed)
    if not classes:
        made = with_empty_head(made, network)
    metadata = {"classes": list(classes), "day": "origin", "made": source, "network": network}
    return Model(made, tuple(classes), metadata)
