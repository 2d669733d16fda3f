"""Which words two texts share, as F1 counts them, with their places: for people who want to see a score."""

from __future__ import annotations

import re
from collections import Counter

from flip_plugin.text.similarity import normalize_answer

_PIECE = re.compile(r"\S+|\s+")


Piece = tuple[str, bool | None]


def shared_words(one: str, other: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces (words and the blanks between them), each with True where `other` has the word, too.

    A word counts as often as both sides have it, after `normalize_answer`; blanks, articles and
    punctuation have None. Joined, the pieces are the text.

    >>> shared_words("A red red rose", "red rose")[0]
    [('A', None), (' ', None), ('red', True), (' ', None), ('red', False), (' ', None), ('rose', True)]
    """
    mine, theirs = _pieces(one), _pieces(other)
    both = Counter(word for _, words in mine for word in words) & Counter(word for _, words in theirs for word in words)
    return _marked(mine, both.copy()), _marked(theirs, both.copy())


def _pieces(text: str) -> list[tuple[str, list[str]]]:
    return [(match.group(), normalize_answer(match.group()).split()) for match in _PIECE.finditer(text)]


def _marked(pieces: list[tuple[str, list[str]]], left: Counter[str]) -> list[Piece]:
    marked: list[Piece] = []
    for text, words in pieces:
        shared = all(left[word] > 0 for word in words) if words else None
        if shared:
            left.subtract(words)
        marked.append((text, shared))
    return marked
