"""A judge's reply -> the inferred instruction (or the score), or the reason why there is none.

Judges were asked for one JSON object and send much else: fences, prose, two
objects, other spellings of the key, raw newlines, a thinking block, half a string.
What can be read without guessing is read; everything else is a `problem`, and raw
text never becomes an instruction. No function here raises, whatever the text.

Order of trust: the whole reply as JSON, then every object that decodes (the last
one that has the key wins), then json-repair on what has the key but does not
decode. Thinking is dropped first; a thinking block that is never closed means the
reply stopped before its answer, so nothing in it counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LONGEST_REPLY = 100_000  # characters; more than any token budget here, and parsing stays linear
LONGEST_REPAIR = 20_000
MOST_TRIES = 64

_DECODER = json.JSONDecoder(strict=False)  # raw newlines and tabs inside strings are fine
_THINK_OPEN = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_THINK_CLOSE = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_FENCES = re.compile(r"\A\s*```[\w-]*\s*\n?|\n?\s*```\s*\Z")
_NOT_LETTERS = re.compile(r"[\W_]+")
_SCORE = re.compile(r"(\d+(?:\.\d+)?)(?:\s*/\s*10)?")

INSTRUCTION_KEYS = ("inferredinstruction", "instruction")
SCORE_KEYS = ("score", "rating")
_KEY_PATTERNS: dict[tuple[str, ...], re.Pattern[str]] = {
    INSTRUCTION_KEYS: re.compile(r"(?:inferred[\s_-]*)?instruction['\"”’]?\s*:", re.IGNORECASE),
    SCORE_KEYS: re.compile(r"(?:score|rating)['\"”’]?\s*:", re.IGNORECASE),
}


@dataclass(frozen=True)
class ParsedReply:
    """`instruction` is a non-empty text exactly when `problem` is None."""

    instruction: str | None = None
    reasoning: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class ParsedScore:
    """`score` is a number from 1 to 10 exactly when `problem` is None."""

    score: float | None = None
    reasoning: str | None = None
    problem: str | None = None


def parse_flip_reply(text: str | None) -> ParsedReply:
    """The inferred instruction and the reasoning of a FLIP judge's reply.

    >>> parse_flip_reply('Sure! {"Inferred_Instruction": "Write a haiku"}').instruction
    'Write a haiku'
    >>> parse_flip_reply("Write a haiku").problem
    'no JSON object in the reply'
    """
    value, found, problem = _read(text, INSTRUCTION_KEYS, _instruction)
    return ParsedReply(value, _reasoning(found), problem)


def parse_score_reply(text: str | None) -> ParsedScore:
    """The score, 1 to 10, and the reasoning of a pointwise judge's reply.

    >>> parse_score_reply('{"REASONING": "fine", "SCORE": "8/10"}').score
    8.0
    """
    value, found, problem = _read(text, SCORE_KEYS, _score)
    return ParsedScore(value, _reasoning(found), problem)


def after_thinking(text: str) -> str | None:
    """What follows the last closed thinking block; None when one is left open.

    Templates that open the block in the prompt make replies with a closing tag only.
    """
    closed = [match.end() for match in _THINK_CLOSE.finditer(text)]
    rest = text[closed[-1] :] if closed else text
    return None if _THINK_OPEN.search(rest) else rest


# A reader turns the value of the key into (value, None) or (None, problem).
Reader = Callable[[Any], tuple[Any, str | None]]


def _read(text: str | None, keys: tuple[str, ...], reader: Reader) -> tuple[Any, dict[str, Any] | None, str | None]:
    if text is None or not text.strip():
        return None, None, "the judge sent no text"
    if len(text) > LONGEST_REPLY:
        return None, None, f"the reply has {len(text)} characters, more than {LONGEST_REPLY}"
    bare = _FENCES.sub("", text.strip())
    whole = _decode_whole(bare)
    if whole is not None and (holder := _holder(whole, keys)):
        # Before any look at think tags: here they can only be part of a string.
        value, problem = reader(_value(holder, keys))
        return value, holder, problem
    closed = [match.end() for match in _THINK_CLOSE.finditer(text)]
    rest = text[closed[-1] :] if closed else text
    reopened = _THINK_OPEN.search(rest)
    # What starts after an unclosed tag is thinking. An object before it may hold the tag.
    limit = reopened.start() if reopened else len(rest)
    problem = "the reply ends inside its thinking" if reopened else "no JSON object in the reply"
    holders = _decoded(rest, limit, keys)
    if not holders and not reopened:
        holders = _repaired(_FENCES.sub("", rest), keys)
        if not holders and "{" in rest:
            problem = f"no readable JSON object with {keys[0]!r} in the reply"
    for holder in reversed(holders):
        value, complaint = reader(_value(holder, keys))
        if complaint is None:
            return value, holder, None
        problem = complaint
    return None, None, problem


def _decode_whole(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None


def _decoded(text: str, limit: int, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """The objects with a wanted key that decode, in order, starting before `limit`."""
    holders, at, failed = [], text.find("{"), 0
    while 0 <= at < limit and failed < MOST_TRIES:
        try:
            found, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            failed, end = failed + 1, at + 1
        else:
            if holder := _holder(found, keys):
                holders.append(holder)
        at = text.find("{", end)
    return holders


def _repaired(text: str, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """At most one object, mended by json-repair, from text that has the key but is no JSON."""
    spots = [match.start() for match in _KEY_PATTERNS[keys].finditer(text)]
    if not spots:
        return []
    # Late, and only for malformed replies: most never need it.
    import json_repair

    starts = [match.start() for match in re.finditer(r"\{", text[: spots[-1]])]
    for start in starts[:8]:
        try:
            found = json_repair.loads(text[start : start + LONGEST_REPAIR])
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue
        # It may also answer with a list of fragments or with text: those are guesses.
        if isinstance(found, dict) and (holder := _holder(found, keys)):
            return [holder]
    return []


def _holder(found: Any, keys: tuple[str, ...], depth: int = 4) -> dict[str, Any] | None:
    """The last dict in `found` (itself, or nested in lists and dicts) with a wanted key."""
    if isinstance(found, dict):
        if any(_plain(key) in keys for key in found):
            return found
        inner = list(found.values())
    elif isinstance(found, list):
        inner = found
    else:
        return None
    nested = (_holder(one, keys, depth - 1) for one in reversed(inner)) if depth else ()
    return next((one for one in nested if one is not None), None)


def _value(holder: dict[str, Any], keys: tuple[str, ...]) -> Any:
    plain = {_plain(key): value for key, value in holder.items()}
    return next(plain[key] for key in keys if key in plain)


def _plain(key: str) -> str:
    return _NOT_LETTERS.sub("", key).lower()


def _reasoning(holder: dict[str, Any] | None) -> str | None:
    found = {_plain(key): value for key, value in (holder or {}).items()}.get("reasoning")
    return found if isinstance(found, str) else None


def _instruction(value: Any) -> tuple[str | None, str | None]:
    if not isinstance(value, str):
        return None, f"the inferred instruction is of type {type(value).__name__}, not text"
    return (value.strip(), None) if value.strip() else (None, "the inferred instruction is empty")


def _score(value: Any) -> tuple[float | None, str | None]:
    number = None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and (match := _SCORE.fullmatch(value.strip())):
        number = float(match.group(1))
    if number is None:
        return None, f"the score is {str(value)[:40]!r}, not a number"
    # Written so that NaN and integers too large for a float fail it.
    if not 1 <= number <= 10:
        return None, f"the score {str(number)[:20]} is not 1..10"
    return float(number), None
