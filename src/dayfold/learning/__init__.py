"""What learns: the network, its pixels, and the device that it runs on."""

import os

# Read by libgomp when torch is first imported. Threads that wait for each other spin for so long
# that two trainings on two cores got half as far together as one alone; spinning for a moment only
# costs nothing where there is one. No bit depends on it.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
