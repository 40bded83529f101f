"""Checks that what is recorded is true: days are made again, and hashes are read again."""
