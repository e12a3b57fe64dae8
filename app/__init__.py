"""Reprog: a remote prediction API, reprogrammed into a classifier for another task by queries alone."""

__version__ = "0.1.0"
