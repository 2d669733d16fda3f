"""Errors that a command shows to its user without a traceback."""

from __future__ import annotations


class CommandError(ValueError):
    """What the user has to change; printed without a traceback."""
