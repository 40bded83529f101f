"""The six stages: a pure function and a thin shell each."""
