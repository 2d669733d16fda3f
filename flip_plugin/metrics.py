"""Similarity between the inferred and the real instruction, 0 (nothing shared) to 1.

`f1_score` is the reward of arXiv 2602.13551: the word-level F1 of SQuAD. Its
normalisation is kept exactly, oddities included (punctuation is deleted, so
``2+2`` becomes ``22``; text without spaces is one word), because published
numbers depend on it. `unicode_f1` is for text that this serves badly.

Other similarities are functions ``(prediction, reference) -> float`` in 0..1,
found by name in `SIMILARITIES` or in the entry-point group
``flip_plugin.similarities``.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable

Similarity = Callable[[str, str], float]

ENTRY_POINT_GROUP = "flip_plugin.similarities"

_DELETE_PUNCTUATION = str.maketrans("", "", string.punctuation)
# A regular expression and not a list of tokens: in "a’s book" the curly quote
# is no ASCII punctuation, and the article before it is dropped all the same.
_ARTICLES = re.compile(r"\b(a|an|the)\b")
# Written without spaces: each character counts as a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0e7f"
_UNICODE_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_APOSTROPHES = str.maketrans("", "", "'’ʼ`´")


def normalize_answer(s: str) -> str:
    """Lower-case, delete ASCII punctuation, drop a/an/the, single spaces; in that order.

    >>> normalize_answer("Write a Haiku, about the sea!")
    'write haiku about sea'
    """
    return " ".join(_ARTICLES.sub(" ", s.lower().translate(_DELETE_PUNCTUATION)).split())


def f1_score(prediction: str, reference: str) -> dict[str, float]:
    """Word-level F1, precision and recall over multisets of words, each 0..1.

    Precision is the share of the prediction's words found in the reference,
    recall the share of the reference's words found in the prediction; a word
    counts as often as both sides have it. No shared word gives zeros, also when
    both sides are empty (an empty guess is no evidence).

    >>> f1_score("write a poem", "write a short poem")["precision"]
    1.0
    """
    return _multiset_f1(normalize_answer(prediction).split(), normalize_answer(reference).split())


def unicode_f1(prediction: str, reference: str) -> float:
    """F1 for any script: accents folded, all punctuation separates, CJK by character.

    >>> unicode_f1("“Écris” un poème", "ecris un poeme")
    1.0
    """
    return _multiset_f1(_unicode_words(prediction), _unicode_words(reference))["f1"]


def get_similarity(name: str) -> Similarity:
    """The similarity called `name`. Raises ValueError with the known names."""
    if name in SIMILARITIES:
        return SIMILARITIES[name]
    from importlib.metadata import entry_points  # its import costs more than the rest of this module

    found = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name in found:
        return found[name].load()
    known = ", ".join(sorted({*SIMILARITIES, *found}))
    raise ValueError(f"unknown similarity {name!r}; known: {known}")


def _multiset_f1(predicted: list[str], wanted: list[str]) -> dict[str, float]:
    shared = sum((Counter(predicted) & Counter(wanted)).values())
    if shared == 0:
        return {"f1": 0.0, "precision": 0.0, "recall": 0.0}
    precision, recall = shared / len(predicted), shared / len(wanted)
    return {"f1": 2 * precision * recall / (precision + recall), "precision": precision, "recall": recall}


def _unicode_words(text: str) -> list[str]:
    folded = unicodedata.normalize("NFKD", text.translate(_APOSTROPHES)).casefold()
    bare = "".join(char for char in folded if not unicodedata.combining(char))
    return [word for word in _UNICODE_WORD.findall(bare) if word not in ("a", "an", "the")]


def _plain_f1(prediction: str, reference: str) -> float:
    return f1_score(prediction, reference)["f1"]


SIMILARITIES: dict[str, Similarity] = {"f1": _plain_f1, "unicode_f1": unicode_f1}
