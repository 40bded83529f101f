"""The machine that trains: device, precision, threads, and its fingerprint (level B)."""

import base64
import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import torch.utils.deterministic
from PIL import Image
from torch.nn import functional

from dayfold import draws
from dayfold.learning.adamw import AdamW
from dayfold.learning.resnet import NETWORKS, Block
from dayfold.ledger.decode import decode, squared
from dayfold.project.cpus import multiplies_bf16
from dayfold.project.files import sha256
from dayfold.project.params import NETWORK

Fingerprint = dict[str, str | int]

# 20 x 12 pixels of colour, with chroma at half size: JPEG decoders differ in it.
JPEG = base64.b64decode(
    """
/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdB
RkxOUlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09P
T09PT09PT09PT09PT0//wAARCAAMABQDASIAAhEBAxEB/8QAFwABAQEBAAAAAAAAAAAAAAAABQAEBv/EACUQAAEDAwMDBQAA
AAAAAAAAAAEAAgQDBSERMUEGEiIzgZHS8f/EABYBAQEBAAAAAAAAAAAAAAAAAAMEBv/EACIRAAEDAwMFAAAAAAAAAAAAAAEA
AxECBCEFEzGBkcHR8P/aAAwDAQACEQMRAD8A5yBZQQCW4T8SzNxpSHvv8JeDGpCmzx4JRL+pJcefKjsoRi2lVLAXNdqQDpnK
DemgADMeJUmm3rrpgJVlnBYO2mNuB+qWClfLo5mZexI9Jn1UhctHzUcj7otnSxdxyO59L//Z
"""
)
CANARY_STEPS = 3


@dataclass(frozen=True)
class Machine:
    """A resolved device ("cpu" or "cuda"), precision ("fp32" or "bf16"), and parallelism.

    Each of the `processes` that train together has `threads` CPU threads.
    """

    device: str
    precision: str
    threads: int
    processes: int = 1

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16")


def resolve(*, device: str, precision: str, threads: int, processes: int = 1) -> Machine:
    """Resolve `auto`, and make torch deterministic for the whole process.

    `auto` takes a GPU if there is one, and bf16 where the hardware multiplies in it: on a CPU
    without such instructions autocast is slower than plain fp32.
    """
    # cuBLAS is deterministic only with a fixed workspace, which it reads when CUDA starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    # use_deterministic_algorithms(True) does the same and imports torch._inductor: 3 s of CPU.
    torch.set_deterministic_debug_mode("error")
    # No code here reads uninitialized memory; filling it took a quarter of the time at 16 px.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    return chosen(device=device, precision=precision, threads=threads, processes=processes)


def chosen(*, device: str, precision: str, threads: int, processes: int = 1) -> Machine:
    """Resolve `auto` without changing torch's settings, for use in other programs."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if precision == "auto":
        if device == "cuda":
            multiplies = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            multiplies = multiplies_bf16()
        precision = "bf16" if multiplies else "fp32"
    return Machine(device, precision, threads, processes)


def fingerprint(machine: Machine, network: str = NETWORK) -> Fingerprint:
    """Return versions, CPU, device and settings, and two canaries: sha256 of small results.

    The canaries show what no version says: the decoders that Pillow was built with, and the kernels
    that torch chose. As far as is known, machines with equal fingerprints give equal bits.
    """
    cpu = torch.cpu.get_capabilities()
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # with the build: 2.14.1+cu130
        **{name: version(name) for name in ("pillow", "numpy")},
        "system": platform.system(),
        "libc": " ".join(platform.libc_ver()),
        "machine": platform.machine(),
        "cpu": str(cpu.get("cpu_name", platform.processor())),
        "cpu_features": " ".join(sorted(name for name, has in cpu.items() if has is True)),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        **_device(machine),
        "precision": machine.precision,
        "threads": machine.threads,
        "processes": machine.processes,
        "decode_canary": decode_canary(),
        "training_canary": training_canary(machine, network),
    }


def _device(machine: Machine) -> Fingerprint:
    if machine.device != "cuda":
        return {"device": machine.device}
    driver = Path("/sys/module/nvidia/version")
    return {
        "device": torch.cuda.get_device_name(),
        "driver": driver.read_text("utf-8").strip() if driver.exists() else "unknown",
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
    }


def decode_canary() -> str:
    """Return the sha256 of the pixels of a small JPEG, PNG and 16-bit PNG, made larger and smaller.

    The PNG files are made here, as PNG is lossless; the JPEG is fixed bytes, as encoders differ.
    """
    values = draws.uniform_array("decode canary", shape=(12, 20, 4)) * 127.5 + 127.5
    colour = Image.fromarray(values.astype(np.uint8), "RGBA")
    grey = Image.fromarray((values[:, :, 0] * 257).astype(np.uint16))
    files = [JPEG]
    for image in (colour, grey):
        file = BytesIO()
        image.save(file, "PNG")
        files.append(file.getvalue())
    squares = [squared(decode(data), size) for data in files for size in (9, 32)]
    return sha256(b"".join(square.tobytes() for square in squares))


def training_canary(machine: Machine, network: str = NETWORK) -> str:
    """Return the sha256 of the weights of a small residual network after three updates.

    It has each kind of layer of `network`: the 7 x 7 stem, batch norm, pooling, a block, one with a
    stride, the head. The optimizer is that of a day.
    """
    kind = NETWORKS[network]
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        torch.nn.BatchNorm2d(64),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(3, 2, 1),
        Block(kind, 64, 64),
        Block(kind, 64 * kind.expansion, 128, stride=2),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(128 * kind.expansion, 4),
    )
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.ndim > 1:
                drawn = draws.uniform_array("canary", name, shape=parameter.shape)
                parameter.copy_(torch.from_numpy(drawn) * (6 / parameter[0].numel()) ** 0.5)
            elif name.endswith("bias"):
                parameter.zero_()
    net.to(machine.device)
    batch = torch.from_numpy(draws.uniform_array("canary", "batch", shape=(16, 3, 64, 64)))
    batch = batch.to(machine.device, memory_format=torch.channels_last)
    targets = torch.arange(16, device=machine.device) % 4
    optimizer = AdamW(net.parameters())
    for _ in range(CANARY_STEPS):
        with machine.autocast():
            logits = net(batch)
        loss = functional.cross_entropy(logits.float(), targets, label_smoothing=0.1)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step(0.01)
    state = sorted(net.state_dict().items())
    return sha256(b"".join(tensor.cpu().numpy().tobytes() for _, tensor in state))
