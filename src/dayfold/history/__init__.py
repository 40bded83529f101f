"""The line of sealed days: records, states, edits by hand."""
