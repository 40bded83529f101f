"""What learns: the network, its pixels, its device."""

import os
import sys

from dayfold.project.cpus import cpus, idle

WATCHED_SECONDS = 0.05

# How long a waiting thread spins. libgomp reads this when torch is first imported, so it is set
# here. Alone on the machine, spinning for some microseconds makes training up to a tenth faster.
# Beside other work the thread that is waited for may have no CPU, so waiting threads give up
# theirs. No bit depends on it.
is_unset = not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys()
if is_unset and "torch" not in sys.modules:
    if idle(WATCHED_SECONDS) < cpus() - 0.5:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    else:
        os.environ["GOMP_SPINCOUNT"] = "1000"
