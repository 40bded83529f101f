"""Checks that what is recorded is true."""
