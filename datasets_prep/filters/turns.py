"""A row's prompt column -> the turns of a prompt, cut at a user turn, with a trainer's role names."""

from __future__ import annotations

from typing import Any

from datasets_prep.reading.batches import writable
from flip_plugin.rows.checks import ROLES, content_text

_ROLE_NAMES = {"human": "user", "prompter": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}


class Malformed(ValueError):
    """A row's prompt cannot be read; the text says why. Its end is `quote`: what the row holds."""

    def __init__(self, reason: str, quote: str = "") -> None:
        super().__init__(reason + quote)
        self.reason, self.quote = reason, quote


def cut_turns(value: Any, first: bool) -> list[dict[str, str]]:
    """A prompt column's value -> turns up to the first (or the last) user turn, with a trainer's role names.

    Text is one user turn. Before the first user turn, system prompts stay and greetings go. [] where
    no user speaks. Raises `Malformed`.
    """
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise Malformed(f"the prompt must be text or a list of turns, not {type(value).__name__}")
    turns: list[dict[str, str]] = []
    last = 0
    for number, turn in enumerate(value, start=1):
        turns.append(_turn(turn, number))
        if turns[-1]["role"] == "user":
            last = number
            if first:
                break
    turns = turns[:last]
    return [turn for turn in turns if turn["role"] != "assistant"] if first else turns


def _turn(turn: Any, number: int) -> dict[str, str]:
    if not isinstance(turn, dict):
        raise Malformed(f"turn {number} must be an object with role and content, not {type(turn).__name__}")
    role = turn.get("role")
    if not isinstance(role, str):
        raise Malformed(f"turn {number} has no role")
    role = role.strip().lower()
    role = _ROLE_NAMES.get(role, role)
    if role not in ROLES:
        raise Malformed(f"turn {number} has a role that is none of {', '.join(ROLES)}", f": {role!r:.60}")
    content = turn.get("content")
    if "content" not in turn:
        raise Malformed(f"turn {number} ({role}) has no content")
    try:
        text = "" if content is None else content_text(content)
    except TypeError as error:
        raise Malformed(f"turn {number} ({role}) has content that cannot be read", f": {error}") from error
    return {"role": role, "content": writable(text)}
