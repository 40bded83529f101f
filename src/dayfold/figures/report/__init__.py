"""The report: one day as one self-contained HTML page."""
