"""The day's cycle: add, (dvc repro,) seal."""
