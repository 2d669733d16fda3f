"""Texts as a page may hold them: hidden characters made visible, cut to a length, marked where two share words.

A text in pieces is ``{"pieces": [...], "left_out": n}``: by turns not marked and marked (so the first piece may be
empty), and how many characters were cut off, where some were. `assets/base.js` draws it (`marked`, `cutNote`).
Where there are more items than a page may hold, `spread` chooses them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeVar

from flip_plugin.text.echo import echo_spans
from flip_plugin.text.similarity import normalize_answer
from flip_plugin.text.word_marks import Piece, shared_words

Marked = dict[str, Any]
T = TypeVar("T")

# Control characters but tab and newline, line separators of JavaScript, what turns the direction of
# writing, and halves of characters: harmless once escaped, but they hide what a text holds.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def as_text(value: Any) -> str:
    """A field that should be text, as text, whatever it is: None is empty, other values are JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def visible(value: Any) -> str:
    r"""`as_text` with hidden characters shown by their numbers.

    >>> visible("a\x00b\u202ec")
    'a⟨U+0000⟩b⟨U+202E⟩c'
    """
    return _HIDDEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", as_text(value).replace("\r\n", "\n"))


def all_visible(value: Any, limit: int | None = None) -> Any:
    """Nested data with every text in it made `visible`, keys too; `limit` cuts the values' texts."""
    if isinstance(value, dict):
        return {visible(str(key)): all_visible(item, limit) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [all_visible(item, limit) for item in value]
    return visible(value[:limit]) if isinstance(value, str) else value


def spread(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items, at even distances, or all of them when there are fewer.

    >>> spread("abcdef", 3)
    ['a', 'c', 'e']
    """
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else list(items)


def clip(value: Any, limit: int) -> dict[str, Any]:
    """``{"text", "left_out"}``: the first `limit` characters, made visible, and how many more there are."""
    text = as_text(value)
    return {"text": visible(text[:limit]), **_left_out(text, limit)}


def mark_echo(target: str, response: str, limit: int) -> Marked:
    """A response in pieces, by turns its own and restated from `target`, as `echo_share` counts it.

    >>> mark_echo("Write a haiku about autumn", "Sure: write a haiku about autumn!", 100)["pieces"]
    ['Sure: ', 'write a haiku about autumn!', '']
    """
    text = response[:limit]
    pieces, at = [], 0
    for start, end in echo_spans(target, text) if target else []:
        pieces += [text[at:start], text[start:end]]
        at = end
    return {"pieces": [visible(piece) for piece in [*pieces, text[at:]]], **_left_out(response, limit)}


def mark_shared(real: str, inferred: str, limit: int) -> dict[str, Any]:
    """Where two texts share words, as the reward counts them (each occurrence once), over the whole of both.

    ``{"real", "inferred"}`` are the texts in pieces, the shared ones marked; ``"counts"`` are the three numbers
    that the F1 is made of: shared words, words of `real`, words of `inferred`.

    >>> mark_shared("Write the sea.", "write, a hill", 100)["real"]["pieces"]
    ['', 'Write', ' the sea.']
    """
    of_real, of_inferred = (Counter(normalize_answer(text).split()) for text in (real, inferred))
    sides = zip((real, inferred), shared_words(real, inferred), strict=True)
    of_side = [{"pieces": _marked_pieces(words, limit), **_left_out(text, limit)} for text, words in sides]
    counts = [(of_real & of_inferred).total(), of_real.total(), of_inferred.total()]
    return {"real": of_side[0], "inferred": of_side[1], "counts": counts}


def _left_out(text: str, limit: int) -> dict[str, int]:
    return {"left_out": len(text) - limit} if len(text) > limit else {}


def _marked_pieces(words: list[Piece], limit: int) -> list[str]:
    """The first `limit` characters of a text, cut where it changes between not shared and shared."""
    pieces, space, room = [""], "", limit
    for whole, is_shared in words:
        text = whole[:room]
        room -= len(text)
        if not text:
            break
        was_shared = len(pieces) % 2 == 0
        if text.isspace():
            space += text  # waits for the next word: it is marked only between two marked ones
        elif bool(is_shared) == was_shared:
            pieces[-1] += space + text
            space = ""
        elif is_shared:
            pieces[-1] += space
            pieces.append(text)
            space = ""
        else:
            pieces.append(space + text)
            space = ""
    if space and len(pieces) % 2 == 0:
        pieces.append("")
    pieces[-1] += space
    return [visible(piece) for piece in pieces]
