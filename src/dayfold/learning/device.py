"""Device, precision, threads and determinism of training."""

import os
from dataclasses import dataclass

import torch
import torch.utils.deterministic

from dayfold.project.cpus import multiplies_bf16


@dataclass(frozen=True)
class Machine:
    """The resolved device ("cpu" or "cuda"), precision ("fp32" or "bf16"), and how many at once.

    `threads` of the CPU are each process's own; `processes` train together.
    """

    device: str
    precision: str
    threads: int
    processes: int = 1

    def autocast(self) -> torch.autocast:
        """Return the context in which forward passes run."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16")


def resolve(*, device: str, precision: str, threads: int, processes: int = 1) -> Machine:
    """Resolve `auto` and put torch into its deterministic state, for the whole process.

    `auto` takes a GPU if there is one, and bf16 where the hardware multiplies in it: on a CPU
    without such instructions autocast is slower than plain fp32.
    """
    # cuBLAS is deterministic only with a fixed workspace, read when CUDA starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    # As use_deterministic_algorithms(True), which also imports torch._inductor: 3 s of a CPU.
    torch.set_deterministic_debug_mode("error")
    # Nothing here reads what was never written; filling it took a quarter of the time at 16 px.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    return chosen(device=device, precision=precision, threads=threads, processes=processes)


def chosen(*, device: str, precision: str, threads: int, processes: int = 1) -> Machine:
    """Resolve `auto` only: what computes in a program of somebody else's must not change torch."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if precision == "auto":
        if device == "cuda":
            multiplies = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            multiplies = multiplies_bf16()
        precision = "bf16" if multiplies else "fp32"
    return Machine(device, precision, threads, processes)
