"""The day's cycle: open, add, (dvc repro,) seal; with a person or without one."""
