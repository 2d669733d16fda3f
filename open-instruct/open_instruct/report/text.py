"""Text and numbers from a run, as a page may hold them: cleaned, cut to a length, marked where texts share words."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from flip_plugin.text.echo import echo_spans
from flip_plugin.text.similarity import normalize_answer

MAX_CHARS = 4000  # of any one text
_LARGEST = 1e300  # a page that subtracts two of them must not get infinity

Row = dict[str, Any]

# Control characters but tab and newline, and those that turn the direction of what follows:
# harmless once escaped, but they hide what a response holds.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def number(value: Any) -> float | None:
    """A finite number, or None for anything else (nan, inf and integers past any float, too)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if -_LARGEST < value < _LARGEST else None


def short(value: Any) -> float | None:
    """A number to six digits, which is more than a screen shows and half of the bytes."""
    return None if (value := number(value)) is None else float(f"{value:.6g}")


def visible(text: str) -> str:
    r"""The text with hidden characters shown by their numbers.

    >>> visible("a\x00b\u202ec")
    'a⟨U+0000⟩b⟨U+202E⟩c'
    """
    return _HIDDEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text.replace("\r\n", "\n"))


def as_text(value: Any) -> str:
    """A field that should be text, as text, whatever it is."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def clip(value: Any) -> Row:
    """A text as the page holds it: at most MAX_CHARS of it, and how many characters are left out."""
    text = as_text(value)
    return {"text": visible(text[:MAX_CHARS]), **left_out(text)}


def left_out(text: str) -> Row:
    """How many characters of `text` are past MAX_CHARS; {} for none."""
    return {"left_out": len(text) - MAX_CHARS} if len(text) > MAX_CHARS else {}


def mark_echo(target: str, response: str) -> Row:
    """A response in pieces, by turns its own and restated from `target`, as `echo_share` counts it.

    >>> mark_echo("Write a haiku about autumn", "Sure: write a haiku about autumn!")["pieces"]
    ['Sure: ', 'write a haiku about autumn!', '']
    """
    text = response[:MAX_CHARS]
    pieces, at = [], 0
    for start, end in echo_spans(target, text) if target else []:
        pieces += [text[at:start], text[start:end]]
        at = end
    return {"pieces": [visible(piece) for piece in [*pieces, text[at:]]], **left_out(response)}


def mark_shared(real: str, inferred: str) -> Row:
    """Where two texts share words, as the reward counts them (each occurrence once).

    Returns `real` and `inferred` as pieces of the text, by turns not shared and shared
    (so the first may be empty), and the three counts that the F1 is made of.

    >>> mark_shared("Write the sea.", "write, a hill")["real"]["pieces"]
    ['', 'Write', ' the sea.']
    """
    of_real, of_inferred = (Counter(normalize_answer(text).split()) for text in (real, inferred))
    shared = of_real & of_inferred
    return {
        "real": {"pieces": _pieces(real, shared), **left_out(real)},
        "inferred": {"pieces": _pieces(inferred, shared), **left_out(inferred)},
        "counts": [shared.total(), of_real.total(), of_inferred.total()],
    }


def _pieces(text: str, shared: Counter[str]) -> list[str]:
    """The first MAX_CHARS of a text, cut where it changes between not shared and shared."""
    left = shared.copy()
    pieces, space = [""], ""
    for part in re.split(r"(\s+)", text[:MAX_CHARS]):
        if not part or part.isspace():
            space += part  # waits for the next word: it is marked only between two marked ones
            continue
        # Normalising goes word by word: nothing in it looks across white space.
        words = Counter(normalize_answer(part).split())
        is_shared = bool(words) and words <= left
        if is_shared:
            left -= words
        was_shared = len(pieces) % 2 == 0
        if is_shared == was_shared:
            pieces[-1] += space + part
        elif is_shared:
            pieces[-1] += space
            pieces.append(part)
        else:
            pieces.append(space + part)
        space = ""
    if space:
        if len(pieces) % 2 == 0:
            pieces.append("")
        pieces[-1] += space
    return [visible(piece) for piece in pieces]
