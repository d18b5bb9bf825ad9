"""Decisions of the runtime as pure functions and values."""
