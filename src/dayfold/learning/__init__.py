"""What learns: the network, its pixels, its device."""

import os
import sys

from dayfold.project.cpus import cpus, idle

WATCHED_SECONDS = 0.05

# libgomp reads it when torch is first imported: how long a thread that waits for the others spins.
# Alone, some microseconds of it make training up to a tenth faster. Beside other work the one that
# is waited for may have no CPU, so waiting threads give theirs away. No bit depends on it.
# Where torch is there already it is too late, and a program of somebody else's is not kept waiting.
is_open = not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys()
if is_open and "torch" not in sys.modules:
    if idle(WATCHED_SECONDS) < cpus() - 0.5:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    else:
        os.environ["GOMP_SPINCOUNT"] = "1000"
