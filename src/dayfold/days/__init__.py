"""The sealed days: their line, their records, and what commands refuse."""
