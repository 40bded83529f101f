"""That what is recorded is true: days made again, hashes read again, the state of a project."""
