"""The sealed days: records, states, edits by hand."""
