"""Pointsman: an inference gateway. See README.md for the way of a request."""

__version__ = "0.1.0"
