"""A judge's reply -> the inferred instruction (or score, or choice), or the reason why there is none.

Judges were asked for one JSON object and send much else: fences, prose, two
objects, other spellings of the key, raw newlines, a thinking block, half a string.
What can be read without guessing is read; everything else is a `problem`, and raw
text never becomes an instruction. No function here raises, whatever the text, and
each takes time linear in it (a few milliseconds for the longest).

Order of trust: the whole reply as JSON (also JSON written as a JSON string), then
every object that decodes or that `mending` can read (the last one that has the key
wins), then one whose end is cut off: without a finish reason that says so (the reward
looks at it first) the cut may well be the closing brace alone. Thinking is dropped
first; a thinking block that is never closed means the reply stopped before its answer,
so nothing in it counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flip_plugin.replies.repair import DECODER, mend
from flip_plugin.text.reasoning import after_closed_thinking, thinking_start

# Characters behind the thinking; many times what an answer needs.
LONGEST_REPLY = 50_000
# Characters looked at in vain before the search for objects is given up, and what each brace costs besides.
MOST_LOOKED_AT = 60_000
COST_OF_A_TRY = 200
CHEAP = 16  # times faster than mending is the JSON decoder, at least
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
_NOT_LETTERS = re.compile(r"[\W_]+")
_SCORE = re.compile(r"(\d+(?:\.\d+)?)(?:\s*/\s*10)?")
_INDEX = re.compile(
    r"(?:[^\w-]|_)*(?:(?:response|answer|option|candidate|index)[\s_:#]*)?(\d{1,6})[\]\s).:>]*", re.IGNORECASE
)
_LETTER = re.compile(r"[\W_]*(?:(?:response|answer|option|assistant)[\s_:#]*)?([AB])[\]\s).:>*]*", re.IGNORECASE)

INSTRUCTION_KEYS = ("inferredinstruction", "inferredinstructions", "instruction", "instructions")
SCORE_KEYS = ("score", "rating")
INDEX_KEYS = ("bestresponseindex", "bestindex", "responseindex", "bestresponse", "index", "best")
BETTER_KEYS = ("betterresponse", "better", "winner", "verdict")


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
    value, found, problem = _read(text, INSTRUCTION_KEYS, _instruction)
    return ParsedReply(value, _reasoning(found), problem)


def parse_score_reply(text: str | None) -> ParsedScore:
    """The score, 1 to 10, and the reasoning of a pointwise judge's reply.

    >>> parse_score_reply('{"REASONING": "fine", "SCORE": "8/10"}').score
    8.0
    """
    value, found, problem = _read(text, SCORE_KEYS, _score)
    return ParsedScore(value, _reasoning(found), problem)


def parse_best_index(text: str | None, n: int) -> ParsedChoice:
    """Which of `n` responses a listwise judge named, counted from 0.

    >>> parse_best_index('{"REASONING": "r", "BEST_RESPONSE_INDEX": "Response 2"}', 4).index
    2
    >>> parse_best_index('{"BEST_RESPONSE_INDEX": 4}', 4).problem
    'the best response is 4, not 0..3'
    """

    def index(value: Any) -> tuple[int | None, str | None]:
        number = _index(value)
        if number is None:
            return None, f"the best response is {_described(value)}, not an index"
        return (number, None) if 0 <= number < n else (None, f"the best response is {number:.0f}, not 0..{n - 1}")

    value, found, problem = _read(text, INDEX_KEYS, index)
    return ParsedChoice(value, _reasoning(found), problem)


def parse_better(text: str | None) -> ParsedChoice:
    """Which of two responses a pairwise judge prefers: 0 for A, 1 for B. A tie is a problem.

    >>> parse_better('{"REASONING": "r", "BETTER_RESPONSE": "[[B]]"}').index
    1
    """
    value, found, problem = _read(text, BETTER_KEYS, _letter)
    return ParsedChoice(value, _reasoning(found), problem)


# A reader turns the value of the key into (value, None) or (None, problem).
Reader = Callable[[Any], tuple[Any, str | None]]
Holders = list[dict[str, Any]]


def _read(text: str | None, keys: tuple[str, ...], reader: Reader) -> tuple[Any, dict[str, Any] | None, str | None]:
    """(value, the object that holds it, None), or (None, None or the last object, problem)."""
    if not isinstance(text, str) or not text.strip(_BLANK):
        return None, None, "the judge sent no text"
    # JSON inside a JSON string is read as the reply; what such a string holds in turn is not.
    for _ in range(2):
        whole = _decode_whole(_without_fences(text))
        if not isinstance(whole, str):
            break
        text = whole
    if isinstance(whole, (dict, list)):
        # Before any look at think tags: here they can only be part of a string.
        return _last_readable([holder] if (holder := _holder(whole, keys)) else [], keys, reader, whole=True)
    rest = _without_fences(after_closed_thinking(text))
    reopened = thinking_start(rest)
    if len(rest) > LONGEST_REPLY:
        return None, None, f"the reply has {len(rest)} characters, more than {LONGEST_REPLY}"
    holders = _holders(rest, reopened, keys)
    if holders is None:
        return None, None, "the reply has too many braces to tell which object is the answer"
    if not holders and reopened is not None:
        return None, None, "the reply ends inside its thinking"
    return _last_readable(holders, keys, reader, whole="{" in rest)


def _last_readable(
    holders: Holders, keys: tuple[str, ...], reader: Reader, *, whole: bool
) -> tuple[Any, dict[str, Any] | None, str | None]:
    """The value of the last holder that has a readable one; `whole`: the reply has objects at all."""
    problem = f"no readable JSON object with {keys[0]!r} in the reply" if whole else "no JSON object in the reply"
    # The key as it was asked for goes before a looser spelling, wherever it stands.
    for holder in reversed(sorted(holders, key=lambda holder: any(_plain(key) == keys[0] for key in holder))):
        value, complaint = reader(_value(holder, keys))
        if complaint is None:
            return value, holder, None
        problem = complaint
    return None, holders[-1] if holders else None, problem


def _without_fences(text: str) -> str:
    """`text` without blanks, byte-order mark and code fences around it."""
    bare = _OPEN_FENCE.sub("", text.strip(_BLANK), count=1)
    return bare.removesuffix("```").strip(_BLANK)


def _decode_whole(text: str) -> Any:
    """`text` as JSON; None where it is not, or is too long to be an answer."""
    try:
        return DECODER.decode(text) if len(text) <= LONGEST_REPLY else None
    except (ValueError, RecursionError):
        return None


def _holders(text: str, limit: int | None, keys: tuple[str, ...]) -> Holders | None:
    """The objects with a wanted key, the most trusted last: in their order, but cut ones first.

    What starts at `limit`, the place of an unclosed thinking tag, is thinking; an object
    before it may hold the tag as text, but nothing is mended then: its end may be missing.
    None when the search would cost too much: the last object must be seen, or none counts.
    """
    complete: Holders = []
    cut: Holders = []
    budget, at = MOST_LOOKED_AT, 0
    while (opening := _OPENING.search(text, at)) and (limit is None or opening.start() < limit):
        if budget <= 0:
            return None
        start = opening.start()
        found, end, looked = _decode_at(text, start)
        looked //= CHEAP
        into = complete
        if found is None and limit is None:
            found, end = mend(text, start)
            looked += end - start
            into = complete if text[end - 1] == "}" else cut
        budget -= COST_OF_A_TRY
        if found is None:
            end = start + 1
            budget -= looked
        elif holder := _holder(found, keys):
            into.append(holder)
        at = end
    return cut + complete


def _decode_at(text: str, start: int) -> tuple[Any, int, int]:
    """(object, its end, 0), or (None, 0, how many characters were looked at in vain)."""
    try:
        return *DECODER.raw_decode(text, start), 0
    except json.JSONDecodeError as error:
        return None, 0, error.pos - start
    except (ValueError, RecursionError):  # a number of thousands of digits; nesting
        return None, 0, len(text) - start


def _holder(found: Any, keys: tuple[str, ...]) -> dict[str, Any] | None:
    """The last dict in `found` (itself, or nested in lists and dicts) with a wanted key."""
    waiting = [(found, 0)]
    for _ in range(MOST_PARTS):
        if not waiting:
            break
        part, depth = waiting.pop()
        if isinstance(part, dict) and any(_plain(key) in keys for key in part):
            return part
        if isinstance(part, (dict, list)) and depth < DEEPEST:
            inner = part.values() if isinstance(part, dict) else part
            waiting.extend((one, depth + 1) for one in inner if isinstance(one, (dict, list)))
    return None


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
        return None, f"the score is {_described(value)}, not a number"
    # Written so that NaN and integers too large for a float fail it.
    if not 1 <= number <= 10:
        return None, f"the score {_described(number)} is not 1..10"
    return float(number), None


def _index(value: Any) -> int | None:
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
    return None, f"the better response is {_described(value)}, neither A nor B"


def _described(value: Any) -> str:
    """A short text for messages. Only of plain values: that of a list may be long, and recurses where it is deep."""
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**18:
        return "a number of many digits"  # more than 4300 of them would raise
    return repr(value[:40] if isinstance(value, str) else value)
