"""The command line: parse, call, print."""

# The order here is the order of the panels in `dayfold --help`.
from dayfold.cli import daily, labels, results, stages  # isort: skip
from dayfold.cli.top import app, main

__all__ = ["app", "daily", "labels", "main", "results", "stages"]
