"""The six stages: one file each, a pure function and a thin shell that reads and writes."""
