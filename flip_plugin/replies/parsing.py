"""A judge's reply -> the inferred instruction (or score, or choice), or the reason why there is none.

Judges were asked for one JSON object and send much else: fences, prose, two
objects, other spellings of the key, raw newlines, a thinking block, half a string.
What can be read without guessing is read; everything else is a `problem`, and raw
text never becomes an instruction. No function here raises, whatever the text, and
each takes time linear in it (a few milliseconds for the longest).

The way of a reply, in order of trust:

1. `_unwrap`: is the whole reply JSON (perhaps fenced, perhaps written as a JSON string)? Then that is the answer.
2. Thinking is dropped. What stands behind a thinking block that is never closed is thinking, too: such a reply
   stopped before its answer.
3. `_find_holders`: every object in the rest that decodes, or that `repair_object` can read. The last one with a wanted
   key (`flip_plugin.replies.keys`) is the answer.
4. Last come objects whose end is cut off: without a finish reason that says so (the reward looks at that first), what
   is missing may well be the closing brace alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from flip_plugin.replies.keys import (
    BETTER_KEYS,
    INDEX_KEYS,
    INSTRUCTION_KEYS,
    REASONING_KEY,
    SCORE_KEYS,
    plain,
)
from flip_plugin.replies.repair import DECODER, repair_object
from flip_plugin.text.reasoning import after_closed_thinking, thinking_start

# Characters behind the thinking; many times what an answer needs.
LONGEST_REPLY = 50_000
# The search for objects is given up after so many characters looked at in vain; each brace tried costs some besides.
MOST_LOOKED_AT = 60_000
COST_OF_A_TRY = 200
# The JSON decoder is at least so many times faster than repairing, so what it looks at counts for less.
DECODER_SPEED = 16
# Lists and dicts inside one object, and how deep.
MOST_PARTS = 256
DEEPEST = 4
LONGEST_NUMBER = 40

_BLANK = " \t\r\n\v\f\ufeff\u200b\x00"
_OPEN_FENCE = re.compile(r"\A```[\w-]*")
# A brace that begins an object with a field; braces of prose and code are passed over.
_OPENING = re.compile(r"\{(?=\s*+(?:[\"'`“”‘’]|[A-Za-z_][\w -]{0,80}:))")
# What prompts show in place of an answer, and judges repeat.
_NO_ANSWER = re.compile(r"[\s.…]*|<[^<>]{0,80}>|\[[^\[\]]{0,80}\]")
_SCORE = re.compile(r"(\d+(?:\.\d+)?)(?:\s*/\s*10)?")
_INDEX = re.compile(
    r"(?:[^\w-]|_)*(?:(?:response|answer|option|candidate|index)[\s_:#]*)?(\d{1,6})[\]\s).:>]*", re.IGNORECASE
)
_LETTER = re.compile(r"[\W_]*(?:(?:response|answer|option|assistant)[\s_:#]*)?([AB])[\]\s).:>*]*", re.IGNORECASE)


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


@dataclass(frozen=True)
class ParsedChoice:
    """`index`, from 0, is the named response exactly when `problem` is None."""

    index: int | None = None
    reasoning: str | None = None
    problem: str | None = None


def parse_flip_reply(text: str | None) -> ParsedReply:
    """The inferred instruction and the reasoning of a FLIP judge's reply.

    >>> parse_flip_reply('Sure! {"Inferred_Instruction": "Write a haiku"}').instruction
    'Write a haiku'
    >>> parse_flip_reply("Write a haiku").problem
    'no JSON object in the reply'
    """
    return ParsedReply(*_read(text, INSTRUCTION_KEYS, _instruction))


def parse_score_reply(text: str | None) -> ParsedScore:
    """The score, 1 to 10, and the reasoning of a pointwise judge's reply.

    >>> parse_score_reply('{"REASONING": "fine", "SCORE": "8/10"}').score
    8.0
    """
    return ParsedScore(*_read(text, SCORE_KEYS, _score))


def parse_best_index(text: str | None, n: int) -> ParsedChoice:
    """Which of `n` responses a listwise judge named, counted from 0.

    >>> parse_best_index('{"REASONING": "r", "BEST_RESPONSE_INDEX": "Response 2"}', 4).index
    2
    >>> parse_best_index('{"BEST_RESPONSE_INDEX": 4}', 4).problem
    'the best response is 4, not 0..3'
    """

    def index(value: Any) -> tuple[int | None, str | None]:
        number = _whole_number(value)
        if number is None:
            return None, f"the best response is {_shown(value)}, not an index"
        return (number, None) if 0 <= number < n else (None, f"the best response is {number:.0f}, not 0..{n - 1}")

    return ParsedChoice(*_read(text, INDEX_KEYS, index))


def parse_better(text: str | None) -> ParsedChoice:
    """Which of two responses a pairwise judge prefers: 0 for A, 1 for B. A tie is a problem.

    >>> parse_better('{"REASONING": "r", "BETTER_RESPONSE": "[[B]]"}').index
    1
    """
    return ParsedChoice(*_read(text, BETTER_KEYS, _letter))


class _Reading(NamedTuple):
    """What a reply holds under a wanted key: `value`, or None and the `problem`; in the order of `ParsedReply`."""

    value: Any = None
    reasoning: str | None = None
    problem: str | None = None


#: The value under a wanted key -> (what it means, None) or (None, problem).
Meaning = Callable[[Any], tuple[Any, str | None]]
#: A decoded object with a wanted key.
Holder = dict[str, Any]


def _read(text: str | None, keys: tuple[str, ...], meaning: Meaning) -> _Reading:
    """What `text` holds under one of `keys`; the steps are those of the module."""
    if not isinstance(text, str) or not text.strip(_BLANK):
        return _Reading(problem="the judge sent no text")
    text, whole = _unwrap(text)
    if isinstance(whole, (dict, list)):
        # Before any look at thinking tags: here they can only be part of a string.
        holder = _holder(whole, keys)
        return _last_readable([holder] if holder else [], keys, meaning, has_objects=True)
    rest = _without_fences(after_closed_thinking(text))
    if len(rest) > LONGEST_REPLY:
        return _Reading(problem=f"the reply has {len(rest)} characters, more than {LONGEST_REPLY}")
    thinks_from = thinking_start(rest)
    holders = _find_holders(rest, thinks_from, keys)
    if holders is None:
        return _Reading(problem="the reply has too many braces to tell which object is the answer")
    if not holders and thinks_from is not None:
        return _Reading(problem="the reply ends inside its thinking")
    return _last_readable(holders, keys, meaning, has_objects="{" in rest)


def _unwrap(text: str) -> tuple[str, Any]:
    """(text, that text as JSON or None where it is none). JSON inside a JSON string is the text; once, not again."""
    whole = _decode_whole(text)
    if isinstance(whole, str):
        text = whole
        whole = _decode_whole(text)
    # A string in a string is no answer, but may hold an object.
    return (whole, None) if isinstance(whole, str) else (text, whole)


def _last_readable(holders: list[Holder], keys: tuple[str, ...], meaning: Meaning, *, has_objects: bool) -> _Reading:
    """The value of the last holder that has a readable one; `has_objects`: the reply has objects at all."""
    problem = f"no readable JSON object with {keys[0]!r} in the reply" if has_objects else "no JSON object in the reply"
    # The key as it was asked for goes before a looser spelling, wherever it stands.
    for holder in reversed(sorted(holders, key=lambda holder: any(plain(key) == keys[0] for key in holder))):
        value, complaint = meaning(_value(holder, keys))
        if complaint is None:
            return _Reading(value, _reasoning(holder))
        problem = complaint
    return _Reading(None, _reasoning(holders[-1]) if holders else None, problem)


def _without_fences(text: str) -> str:
    """`text` without blanks, byte-order mark and code fences around it."""
    bare = _OPEN_FENCE.sub("", text.strip(_BLANK), count=1)
    return bare.removesuffix("```").strip(_BLANK)


def _decode_whole(text: str) -> Any:
    """`text` without its fences as JSON; None where it is not, or is too long to be an answer."""
    bare = _without_fences(text)
    try:
        return DECODER.decode(bare) if len(bare) <= LONGEST_REPLY else None
    except (ValueError, RecursionError):
        return None


def _find_holders(text: str, thinks_from: int | None, keys: tuple[str, ...]) -> list[Holder] | None:
    """The objects with a wanted key, the most trusted last: in their order, but those that are cut off first.

    What starts behind `thinks_from`, the place of an unclosed thinking tag, is thinking; an object
    before it may hold the tag as text, but nothing is repaired then: its end may be missing.
    None when the search would cost too much: the last object must be seen, or none counts.
    """
    complete: list[Holder] = []
    cut_off: list[Holder] = []
    budget, at = MOST_LOOKED_AT, 0
    while (opening := _OPENING.search(text, at)) and (thinks_from is None or opening.start() < thinks_from):
        if budget <= 0:
            return None
        start = opening.start()
        value, end, looked_at = _decode_at(text, start)
        cost, is_cut_off = looked_at // DECODER_SPEED, False
        if value is None and thinks_from is None:
            value, end = repair_object(text, start)
            cost += end - start
            is_cut_off = text[end - 1] != "}"
        budget -= COST_OF_A_TRY
        if value is None:
            budget -= cost
            at = start + 1
            continue
        if holder := _holder(value, keys):
            (cut_off if is_cut_off else complete).append(holder)
        at = end
    return cut_off + complete


def _decode_at(text: str, start: int) -> tuple[Any, int, int]:
    """(object, its end, 0), or (None, 0, how many characters were looked at in vain)."""
    try:
        return *DECODER.raw_decode(text, start), 0
    except json.JSONDecodeError as error:
        return None, 0, error.pos - start
    except (ValueError, RecursionError):  # a number of thousands of digits; nesting
        return None, 0, len(text) - start


def _holder(value: Any, keys: tuple[str, ...]) -> Holder | None:
    """The last dict in `value` (itself, or nested in lists and dicts) with a wanted key."""
    waiting = [(value, 0)]
    for _ in range(MOST_PARTS):
        if not waiting:
            break
        part, depth = waiting.pop()
        if isinstance(part, dict) and any(plain(key) in keys for key in part):
            return part
        if isinstance(part, (dict, list)) and depth < DEEPEST:
            inner = part.values() if isinstance(part, dict) else part
            waiting.extend((one, depth + 1) for one in inner if isinstance(one, (dict, list)))
    return None


def _value(holder: Holder, keys: tuple[str, ...]) -> Any:
    """What stands under the first of `keys` that the holder has, in whatever spelling."""
    by_key = {plain(key): value for key, value in holder.items()}
    return next(by_key[key] for key in keys if key in by_key)


def _reasoning(holder: Holder) -> str | None:
    reasoning = {plain(key): value for key, value in holder.items()}.get(REASONING_KEY)
    return reasoning if isinstance(reasoning, str) else None


def _instruction(value: Any) -> tuple[str | None, str | None]:
    if not isinstance(value, str):
        return None, f"the inferred instruction is of type {type(value).__name__}, not text"
    text = value.strip()
    if not text:
        return None, "the inferred instruction is empty"
    if _NO_ANSWER.fullmatch(text):
        return None, f"the inferred instruction is the format's own placeholder {text[:40]!r}"
    return text, None


def _score(value: Any) -> tuple[float | None, str | None]:
    number = None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and len(value) <= LONGEST_NUMBER and (match := _SCORE.fullmatch(value.strip())):
        number = float(match.group(1))
    if number is None:
        return None, f"the score is {_shown(value)}, not a number"
    # Written so that NaN and integers too large for a float fail it.
    if not 1 <= number <= 10:
        return None, f"the score {_shown(number)} is not 1..10"
    return float(number), None


def _whole_number(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e6:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1e6:
        return value
    if isinstance(value, str) and len(value) <= LONGEST_NUMBER and (match := _INDEX.fullmatch(value)):
        return int(match.group(1))
    return None


def _letter(value: Any) -> tuple[int | None, str | None]:
    if isinstance(value, str) and len(value) <= LONGEST_NUMBER and (match := _LETTER.fullmatch(value)):
        return "AB".index(match.group(1).upper()), None
    return None, f"the better response is {_shown(value)}, neither A nor B"


def _shown(value: Any) -> str:
    """A short text for messages. Only of plain values: that of a list may be long, and recurses where it is deep."""
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**18:
        return "a number of many digits"  # more than 4300 of them would raise
    return repr(value[:40] if isinstance(value, str) else value)
