"""Fixtures for every test."""

pytest_plugins = ["databases"]
