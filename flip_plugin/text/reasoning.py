"""Where a model's thinking ends and its answer begins."""

from __future__ import annotations

import re

THINK_OPEN = re.compile(r"<think(?:ing)?>", re.IGNORECASE)

THINK_CLOSE = re.compile(r"</think(?:ing)?>", re.IGNORECASE)


def after_thinking(text: str) -> str | None:
    """What follows the last closed thinking block; None when one is left open.

    Templates that open the block in the prompt make replies with a closing tag only.
    """
    closed = [match.end() for match in THINK_CLOSE.finditer(text)]
    rest = text[closed[-1] :] if closed else text
    return None if THINK_OPEN.search(rest) else rest


def answer_of(response: str | None) -> str:
    """What follows the thinking of a response, without space around it; "" where there is nothing."""
    return (after_thinking(response or "") or "").strip()
