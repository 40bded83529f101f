"""A ResNet18's weights from somebody else's file: whatever torchvision itself would load."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from dayfold.errors import ModelError
from dayfold.learning import network
from dayfold.learning.network import FEATURES, HEAD, Model, State

SHOWN = 12  # problems, at most, that are listed
# Under these keys training scripts keep the state dict beside an optimizer's state and the like.
WRAPPERS = ("state_dict", "model_state_dict", "model")
# In what wraps a network (DataParallel, DistributedDataParallel, torch.compile, a class of one's
# own with a member `model` or `backbone`) the names of its tensors begin with one or more of these.
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")
# BatchNorm counts its batches since torch 0.4.1; files from before, as torchvision's published
# ones, lack the counter, and load_state_dict(strict=True) starts it at 0.
COUNTER = ".num_batches_tracked"


def read(path: Path) -> State:
    """Read a state dict from safetensors or .pt/.pth; from the latter tensors only, no code.

    Parameters become plain tensors; the key around a state dict and the prefixes of wrapped
    networks are taken off. Raises ModelError where the file holds no state dict of tensors.
    """
    try:
        if path.suffix.lower() == ".safetensors":
            found: Any = safetensors.torch.load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist.") from None
    except MemoryError:
        raise
    # The readers raise about anything on damaged bytes.
    except Exception as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(
            f"{path} holds no plain tensors: {said}",
            mend="save it with torch.save(model.state_dict(), …) or as safetensors",
        ) from None
    found = _unwrapped(found)
    if not isinstance(found, Mapping) or not all(torch.is_tensor(v) for v in found.values()):
        raise ModelError(
            f"{path} holds no state dict of tensors.",
            mend=f"save it with torch.save(model.state_dict(), …), alone or under the key "
            f"{', '.join(WRAPPERS[:-1])} or {WRAPPERS[-1]}",
        )
    state: State = {}
    for name, tensor in found.items():
        bare = _bare(str(name))
        if bare in state:
            raise ModelError(f"{path} holds {bare} more than once, under several prefixes.")
        state[bare] = tensor.detach()
    return state


def _unwrapped(found: Any) -> Any:
    while isinstance(found, Mapping):
        inner = next((found[key] for key in WRAPPERS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            break
        found = inner
    return found


def _bare(name: str) -> str:
    while prefix := next((one for one in PREFIXES if name.startswith(one)), ""):
        name = name.removeprefix(prefix)
    return name


def origin(state: State, classes: Sequence[str], source: str) -> Model:
    """Return an origin from a torchvision ResNet18's state dict.

    What load_state_dict(strict=True) takes is taken: other types of numbers are converted, absent
    counters of batch norms start at 0. The head is kept where `classes` names the rows, and dropped
    otherwise. Raises ModelError that lists the tensors that are missing, foreign, of another shape
    or not finite.
    """
    expected = network.blank().state_dict()
    body = {name: tensor for name, tensor in state.items() if name not in HEAD}
    for name, blank in expected.items():
        if name.endswith(COUNTER):
            counter = body.setdefault(name, torch.zeros(blank.shape, dtype=blank.dtype))
            # torch 0.3 had no tensors without a dimension; load_state_dict takes its [1].
            body[name] = counter[0] if counter.shape == (1,) else counter
    problems = [f"{name} is missing" for name in expected if name not in {*body, *HEAD}]
    problems += [f"{name} does not belong to a ResNet18" for name in body if name not in expected]
    problems += [
        f"{name} has the shape {list(tensor.shape)}, not {list(expected[name].shape)}"
        for name, tensor in body.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    if classes:
        shape = list(state[HEAD[0]].shape) if HEAD[0] in state else None
        if shape != [len(classes), FEATURES] or HEAD[1] not in state:
            problems.append(
                f"fc.weight has the shape {shape}, but {len(classes)} classes are named"
            )
        elif list(state[HEAD[1]].shape) != [len(classes)]:
            problems.append(f"fc.bias has the shape {list(state[HEAD[1]].shape)}")
        if len(set(classes)) != len(classes) or not all(classes):
            problems.append("the classes are not distinct names")
    if problems:
        more = len(problems) - SHOWN
        raise ModelError(
            f"{source} does not hold the weights of a torchvision ResNet18:",
            problems=problems[:SHOWN] + [f"and {more} more"] * (more > 0),
        )
    body = {
        name: tensor.to(expected[name].dtype).contiguous() for name, tensor in sorted(body.items())
    }
    head = {name: state[name].float().contiguous() for name in HEAD} if classes else {}
    _check_finite({**body, **head}, source)
    metadata = {"classes": list(classes), "day": "origin", "made": source}
    if not classes:
        return Model(network.without_head(body), (), metadata)
    return Model({**body, **head}, tuple(classes), metadata)


def _check_finite(state: State, source: str) -> None:
    broken = {name: int((~tensor.isfinite()).sum()) for name, tensor in state.items()}
    problems = [
        f"{name}: {count} of {state[name].numel()}" for name, count in broken.items() if count
    ]
    if problems:
        more = len(problems) - SHOWN
        raise ModelError(
            f"{source} has weights that are not finite (NaN or infinite):",
            problems=problems[:SHOWN] + [f"and {more} more"] * (more > 0),
            mend="its training had failed: use the weights of an earlier epoch, or others",
        )
