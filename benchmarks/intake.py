"""How fast `dayfold add` checks and copies, and that it reads every file once.

    python benchmarks/intake.py [images]

Writes that many 512 x 512 PNG files (scans as a camera makes them: smooth, with noise, about
250 kB each) and adds them to a project whose day is open, on every number of workers from one to
the CPUs of this process. Prints the images a minute and core by the clock, which other programs
slow down, and a minute of CPU time, which the target is held against; the peak memory of the
workers, and how many bytes they read for each that was given (Linux: /proc/<pid>/io).
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import psutil
from fuzz import DAY, opened, peak
from train import write_scans

from dayfold.cycle import adding
from dayfold.ledger.intake import workers

TARGET = 1000  # images a minute and core


def start_workers(top: Path, using: int) -> None:
    """Have `using` new workers wait: what they read of Python's own files does not count."""
    workers.end_idle()
    request = {"path": str(top), "stage": ""}
    while len(workers._idle) < using:
        workers.answers([request] * 8 * using)


def spent() -> tuple[int, float, float]:
    """What the idle workers have read, in bytes, the most memory of one, in MiB, and CPU seconds.

    The CPU seconds are this process's too.
    """
    read, most, seconds = 0, 0.0, time.process_time()
    for worker in [one.process.pid for one in workers._idle]:
        process = psutil.Process(worker)
        read += process.io_counters().read_chars
        most = max(most, peak(worker))
        seconds += sum(process.cpu_times()[:2])
    return read, most, seconds


def main() -> None:
    """Measure, print, and fail below the target."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    cpus = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        size = write_scans(top / "scans", count, endings=(".png",))
        print(f"{count} PNG files of 512 x 512 px, {size / count / 1000:.0f} kB each")
        rates = []
        for using in range(1, len(cpus) + 1):
            os.sched_setaffinity(0, cpus[:using])
            project = opened(top / f"project-{using}")
            start_workers(top, using)
            before, _, busy = spent()
            began = time.perf_counter()
            delivery = adding.add(project, top / "scans", day=DAY)
            seconds = time.perf_counter() - began
            if len(delivery.images) != count:
                sys.exit(f"{len(delivery.images)} of {count} images were added")
            after, most, done = spent()
            rates.append(60 * count / (done - busy))
            print(
                f"{using} of {len(cpus)} CPUs: {seconds:.1f} s, "
                f"{60 * count / seconds / using:.0f} images a minute and core by the clock, "
                f"{rates[-1]:.0f} a minute of CPU time; {(after - before) / size:.3f} bytes read "
                f"of each given; a worker had {most:.0f} MiB at most"
            )
        if min(rates) < TARGET:
            sys.exit(f"below the target of {TARGET}")


if __name__ == "__main__":
    main()
