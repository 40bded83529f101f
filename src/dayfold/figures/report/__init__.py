"""The report: one day as one HTML page that needs nothing else, made of recorded facts alone."""
