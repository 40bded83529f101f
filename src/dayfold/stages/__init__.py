"""The six stages: pure functions in thin shells."""
