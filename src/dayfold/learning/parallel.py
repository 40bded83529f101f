"""Data parallelism: processes, and slices on threads.

Slices are for bf16 on a CPU, where the threads of oneDNN's kernels wait for each other at barriers,
whatever the settings. Beside another training, two such threads made 4 images a second instead of
27 (224 px, Intel AMX); two slices, which meet once an update, made 23, and 26 alone. In fp32
waiting threads give up their CPU (learning/__init__.py) and slices are slower: 190 images of 32 px
a second instead of 242.
"""

import copy
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed, nn

from dayfold.errors import DayfoldError, ModelError, ParamsError
from dayfold.learning.device import Machine
from dayfold.project import lifeline
from dayfold.project.files import sha256

LEAST_IMAGES = 16  # images in a slice, as batch norm uses their statistics

Loss = Callable[[nn.Module, torch.Tensor, NDArray[np.int64]], torch.Tensor]


@dataclass(frozen=True)
class Team:
    """One of `size` processes that train together; `rank` 0 prints and writes."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def slice(self, images: int) -> slice:
        """Return this process's part of a batch, in even pieces: of 8 among 3, 0..1, 2..4, 5..7."""
        return slice(images * self.rank // self.size, images * (self.rank + 1) // self.size)

    def combine(self, net: torch.nn.Module, loss: torch.Tensor, part: float) -> float:
        """Average gradients, running statistics and loss over all processes; return the loss.

        `part` is this process's part of the batch, 0..1. Each slice is normalised by its own
        statistics, as in torch's DistributedDataParallel (its SyncBatchNorm is for GPUs only); the
        running statistics are averaged, so every process holds the same network. All of it is one
        sum over one vector, with the same layout in every update. DistributedDataParallel lays out
        its buckets anew after the first update, so a resumed training would add in another order.
        """
        if self.size == 1:
            return loss.item()
        parts = [p.grad for p in net.parameters() if p.grad is not None]
        parts += [buffer for buffer in net.buffers() if buffer.is_floating_point()]
        parts += [loss.detach().view(1)]
        whole = torch.cat([tensor.reshape(-1) for tensor in parts]) * part
        with _peer_errors():
            distributed.all_reduce(whole)
        sums = torch.split(whole, [tensor.numel() for tensor in parts])
        with torch.no_grad():
            for tensor, summed in zip(parts, sums, strict=True):
                tensor.copy_(summed.view(tensor.shape))
        return float(whole[-1])

    def broadcast(self, data: bytes) -> bytes:
        if self.size == 1:
            return data
        length = torch.tensor(len(data))
        with _peer_errors():
            distributed.broadcast(length, src=0)
            if not length:
                return b""
            shared = torch.empty(int(length), dtype=torch.uint8)
            if self.is_first:
                shared.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
            distributed.broadcast(shared, src=0)
        return shared.numpy().tobytes()

    def check_equal(self, data: bytes, what: str) -> None:
        """Raise ModelError, which names `what`, unless all processes have the same bytes."""
        if self.size == 1:
            return
        digest = torch.frombuffer(bytearray.fromhex(sha256(data)), dtype=torch.uint8)
        every = [torch.empty_like(digest) for _ in range(self.size)]
        with _peer_errors():
            distributed.all_gather(every, digest)
        others = [rank for rank, one in enumerate(every) if not torch.equal(one, every[0])]
        if others:
            raise ModelError(
                f"{what} of process {', '.join(map(str, others))} of {self.size} "
                "differ from those of process 0.",
                hint="give every machine the same commit, dvc checkout, packages and hardware",
            )


ALONE = Team()


@contextmanager
def _peer_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        said = str(error).partition("\n")[0]
        raise ModelError(f"The other processes cannot be reached: {said}") from None


def launch(module: str, words: Sequence[str], *, processes: int, threads: int) -> None:
    """Run `python -m module` with `words` in `processes` processes by torchrun, and wait for them.

    torchrun reads its own options from its environment variables: PET_NNODES, PET_NODE_RANK,
    PET_MASTER_ADDR and others. `processes` counts those of all machines. Raises ParamsError if the
    machines cannot share them evenly, ModelError if a process fails.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    args = run.parse_args(["-m", module, *words])  # type: ignore[no-untyped-call]
    machines = int(args.nnodes) if args.nnodes.isdecimal() else 1 if args.nnodes == "1:1" else 0
    if machines < 1 or processes % machines:
        raise ParamsError(
            f"PET_NNODES is {args.nnodes!r}, which does not divide {processes} processes evenly.",
            hint="set PET_NNODES to a number of machines that divides train.processes",
        )
    args.nproc_per_node = str(processes // machines)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ["PYTHONSAFEPATH"] = "1"  # do not import from the current folder
    logging.disable()  # hide torchrun's message on a failed process; ours below is shorter
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)  # torchrun sets these
    handlers = {one: signal.getsignal(one) for one in signals}
    try:
        with TemporaryDirectory() as args.log_dir:
            run.run(args)  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        how = f"exit code {failure.exitcode}" if failure.exitcode > 0 else failure.signal_name()
        raise ModelError(f"Process {rank} of {processes} ended with {how}.") from None
    except SignalException as stop:
        sys.exit(128 + stop.sigval)
    except (RendezvousError, distributed.DistError) as error:
        said = str(error).partition("\n")[0]
        raise ModelError(
            f"The machines cannot reach each other: {said}",
            hint="PET_MASTER_ADDR and PET_MASTER_PORT are those of the machine of PET_NODE_RANK 0",
        ) from None
    finally:
        logging.disable(logging.NOTSET)
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


@contextmanager
def joined(device: str, log: str) -> Iterator[Team]:
    """Join the processes that `launch` started, and end when it does.

    The first process prints, into the file `log` if one is named; the others print errors only. An
    error that a user can fix ends the process without a traceback.
    """
    team = Team(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    place = (log if team.is_first else os.devnull) or None
    try:
        lifeline.tie()
        with (
            Path(place).open("a") if place else nullcontext(sys.stdout) as output,
            redirect_stdout(output),
        ):
            # torchrun passes Ctrl-C on. All writes are atomic, so the process may end at any time.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            _connect(team, device)
            yield team
    except DayfoldError as error:
        text = str(error) if team.rank == 0 else f"process {team.rank}: {error.what}"
        print(f"dayfold: {text}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _connect(team: Team, device: str) -> None:
    if device == "cuda":
        place, devices = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if place >= devices:
            raise ParamsError(
                f"train.processes is {team.size}, but this machine has only {devices} GPUs.",
                hint="set train.processes to the number of GPUs, of all machines together",
            )
        torch.cuda.set_device(place)
    # Two backends: gradients are summed on their device, bytes are shared on the CPU.
    with _peer_errors():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")


def slices_of(machine: Machine, images: int) -> int:
    """Return the number of slices for a batch of `images` images; bits depend on it."""
    if (machine.device, machine.precision) != ("cpu", "bf16"):
        return 1
    return max(1, min(machine.threads, images // LEAST_IMAGES))


class Slices:
    """Forward and backward passes of a batch in `count` slices, each on threads of its own."""

    def __init__(self, learner: nn.Module, loss: Loss, count: int, threads: int) -> None:
        self._loss = loss
        # The copies share the parameters and have batch norms of their own.
        shared = {id(parameter): parameter for parameter in learner.parameters()}
        self._learners = [learner]
        self._learners += [copy.deepcopy(learner, dict(shared)) for _ in range(count - 1)]
        self._pool = ThreadPoolExecutor(
            count, initializer=torch.set_num_threads, initargs=(max(1, threads // count),)
        )

    def backward(self, batch: torch.Tensor, chosen: NDArray[np.int64]) -> torch.Tensor:
        """Set the gradient of every parameter; return the loss of the whole batch, float32 [].

        `chosen` int64 [n] are passed on to the loss. Each slice is normalised by its own
        statistics, and running statistics are averaged, as between processes (Team.combine).
        """
        count, images = len(self._learners), len(chosen)
        if count == 1:
            loss = self._loss(self._learners[0], batch, chosen)
            torch.autograd.backward(loss)
            return loss
        cuts = [Team(number, count).slice(images) for number in range(count)]
        parts = [(cut.stop - cut.start) / images for cut in cuts]
        statistics = [
            [buffer for buffer in learner.buffers() if buffer.is_floating_point()]
            for learner in self._learners
        ]
        for copies in statistics[1:]:
            torch._foreach_copy_(copies, statistics[0])
        batches, rows = ([whole[cut] for cut in cuts] for whole in (batch, chosen))
        results = list(self._pool.map(self._gradients, self._learners, batches, rows))
        with torch.no_grad():
            # In the order of the slices, not of their completion.
            gradients = _mean([gradients for _, gradients in results], parts)
            torch._foreach_copy_(statistics[0], _mean(statistics, parts))
        for parameter, gradient in zip(self._learners[0].parameters(), gradients, strict=True):
            parameter.grad = gradient
        losses = [loss * part for (loss, _), part in zip(results, parts, strict=True)]
        return torch.stack(losses).sum()

    def _gradients(
        self, learner: nn.Module, batch: torch.Tensor, chosen: NDArray[np.int64]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        loss = self._loss(learner, batch, chosen)
        return loss.detach(), torch.autograd.grad(loss, list(learner.parameters()))


def _mean(tensors: Sequence[Sequence[torch.Tensor]], parts: Sequence[float]) -> list[torch.Tensor]:
    total = torch._foreach_mul(list(tensors[0]), parts[0])
    for more, part in zip(tensors[1:], parts[1:], strict=True):
        torch._foreach_add_(total, list(more), alpha=part)
    return list(total)
