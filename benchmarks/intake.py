"""How fast `dayfold add` checks and copies.

    python benchmarks/intake.py [--images 1000]

Writes that many 512 x 512 PNG files (scans as a camera makes them: smooth, with noise, about
250 kB each) and adds them to a project whose day is open. Prints the images a minute and core by
the clock, which other programs slow down, and a minute of CPU time.
"""

import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from measuring import command_line
from train import write_scans

from builders import DAYS, make_project, open_day
from dayfold.cycle import adding
from dayfold.ledger.intake import workers
from dayfold.project import vcs
from dayfold.project.cpus import cpus


def main() -> None:
    count = command_line(__doc__, images=1000).images
    with TemporaryDirectory() as name:
        project, scans = make_project(Path(name) / "project"), Path(name) / "scans"
        vcs.git(project.root, "init", "--quiet")
        open_day(project, DAYS[0])
        write_scans(scans, count, endings=(".png",))
        began, busy = time.perf_counter(), sum(os.times()[:4])
        delivery = adding.add(project, scans, day=DAYS[0])
        seconds = time.perf_counter() - began
        workers.end_idle()
        busy = sum(os.times()[:4]) - busy  # of this process and its children
    rate = 60 * len(delivery.images)
    print(
        f"{len(delivery.images)} images, {cpus()} CPUs: {rate / seconds / cpus():.0f} a minute and "
        f"core by the clock, {rate / busy:.0f} a minute of CPU time"
    )


if __name__ == "__main__":
    main()
