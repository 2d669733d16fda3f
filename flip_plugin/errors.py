"""Errors that a command shows to its user without a traceback, and what their texts have in common."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CommandError(ValueError):
    """What the user has to change; printed without a traceback."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The question after the nearest of the `known` names; "" where none is near.

    >>> did_you_mean("general-flp", ["general-flip", "gsm8k"])
    "did you mean 'general-flip'?"
    """
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {nearest[0]!r}?" if nearest else ""
