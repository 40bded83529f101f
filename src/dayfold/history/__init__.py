"""The line of sealed days: its records, its states, edits by hand."""
