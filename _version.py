"""The one place that holds the versions of the program and of its figures."""

__version__ = "0.1.0"

NUMERIC_VERSION = 4
"""Raised by one whenever a change of the code changes the figures of a run; studies then do their runs again."""
