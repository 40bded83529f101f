"""The report: one day as one HTML page."""
