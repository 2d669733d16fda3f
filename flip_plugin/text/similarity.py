"""Similarity between the inferred and the real instruction, 0 (nothing shared) to 1.

`f1_score` is the reward of arXiv 2602.13551: the word-level F1 of SQuAD. Its
normalisation is kept exactly, oddities included (punctuation is deleted, so
``2+2`` becomes ``22``; text without spaces is one word), because published
numbers depend on it. `unicode_f1` is for text that this serves badly, `rouge_l`
also looks at the order of the words.

Other similarities are functions ``(prediction, reference) -> float`` in 0..1,
found by name (`get_similarity`): in `SIMILARITIES`, as ``embedding:MODEL``
(`flip_plugin.text.embedding`), or in the entry-point group ``flip_plugin.similarities``.
One that is too slow for an event loop carries the attribute ``slow = True``, and
is then called in a thread.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cache, lru_cache

from flip_plugin import plugins

Similarity = Callable[[str, str], float]
Words = Counter[str]

ENTRY_POINT_GROUP = "flip_plugin.similarities"

_PUNCTUATION = string.punctuation.encode()
_LOWER = bytes.maketrans(string.ascii_uppercase.encode(), string.ascii_lowercase.encode())
_ARTICLES = ("a", "an", "the")
# Not the same as dropping the words a, an, the: in "a’s book" the curly quote is
# no ASCII punctuation, so it ends a word, and the article before it goes.
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
# A group of responses shares one target: its words are counted once. Longer
# targets are counted anew, so that the cache stays below some tens of megabytes.
_CACHED_TARGETS = 128
_CACHED_CHARACTERS = 20_000

# Written without spaces: each character counts as a word. Thai, Lao, Burmese, Khmer, kana, Han.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003347f"
)
_LAST_SIGN = 0x11FFF  # no Indic script lies further up
_ASCII_WORD = re.compile("[a-z0-9]+")
_APOSTROPHES = str.maketrans("", "", "'’ʼ`´")


def normalize_answer(s: str) -> str:
    """Lower-case, delete ASCII punctuation, drop a/an/the, single spaces; in that order.

    >>> normalize_answer("Write a Haiku, about the sea!")
    'write haiku about sea'
    """
    words = _lower_without_punctuation(s).split()
    if "".join(words).isalnum():  # no boundary inside a word, so the regular expression can find no more
        return " ".join([word for word in words if word not in _ARTICLES])
    return " ".join(_ARTICLE.sub(" ", " ".join(words)).split())


def f1_score(prediction: str, reference: str) -> dict[str, float]:
    """Word-level F1, precision and recall over multisets of words, each 0..1.

    Precision is the share of the prediction's words found in the reference,
    recall the share of the reference's words found in the prediction; a word
    counts as often as both sides have it. No shared word gives zeros, also when
    both sides are empty (an empty guess is no evidence).

    >>> f1_score("write a poem", "write a short poem")["precision"]
    1.0
    """
    count_target = _count_words_cached if len(reference) <= _CACHED_CHARACTERS else _count_words
    return _multiset_f1(_count_words(prediction), count_target(reference))


def unicode_f1(prediction: str, reference: str) -> float:
    """F1 for any script: accents folded, all punctuation separates, CJK by character.

    >>> unicode_f1("“Écris” un poème", "ecris un poeme")
    1.0
    """
    one, other = (
        Counter(word for word in _unicode_words(text.translate(_APOSTROPHES)) if word not in _ARTICLES)
        for text in (prediction, reference)
    )
    return _multiset_f1(one, other)["f1"]


def rouge_l(prediction: str, reference: str) -> float:
    """ROUGE-L (Lin 2004) of two texts, each taken as one sentence: F-measure with beta 1.

    Precision and recall are the longest common subsequence of words over the
    words of the prediction and of the reference. Words as in `unicode_f1`, but
    articles count and apostrophes separate: on ASCII text that is the figure of
    the rouge-score package without stemming; other scripts, which it drops, count too.

    >>> rouge_l("police kill the gunman", "police killed the gunman")
    0.75
    """
    from rapidfuzz.distance import LCSseq  # here, as few runs use it

    predicted, real = _unicode_words(prediction), _unicode_words(reference)
    # 2pr / (p + r) with p = lcs / len(predicted) and r = lcs / len(real)
    return 2 * LCSseq.similarity(predicted, real) / max(1, len(predicted) + len(real))


class Checked:
    """A similarity from outside this package: what it returns is a number in 0..1, or ValueError.

    `name` stands in the message. Pickles when `function` does; keeps its `slow`.
    """

    def __init__(self, function: Similarity, name: str):
        self.function, self.name = function, name
        self.slow = bool(getattr(function, "slow", False))

    def __call__(self, prediction: str, reference: str) -> float:
        """What the function returns. Raises ValueError where that is no number in 0..1."""
        value = self.function(prediction, reference)
        if not hasattr(value, "__float__") or not 0 <= (score := float(value)) <= 1:
            raise ValueError(f"similarity {self.name} returned {value!r:.200}; it must return a number from 0 to 1")
        return score


def get_similarity(name: str) -> Similarity:
    """The similarity called `name`.

    Raises ValueError with the known names, or with what is wrong with the one that
    was found, and ImportError where ``embedding`` lacks its packages.
    """
    if name in SIMILARITIES:
        return SIMILARITIES[name]
    kind, colon, model = name.partition(":")
    if kind == "embedding":
        from flip_plugin.text.embedding import EmbeddingSimilarity

        return Checked(EmbeddingSimilarity(model if colon else None), repr(name))
    point = plugins.find(ENTRY_POINT_GROUP, name)
    if point is None:
        known = ", ".join([*SIMILARITIES, "embedding:MODEL", *plugins.names(ENTRY_POINT_GROUP)])
        raise ValueError(f"unknown similarity {name!r}; known: {known}")
    function = plugins.load(point)
    if not callable(function):
        kind = type(function).__name__
        raise ValueError(f"similarity {plugins.describe(point)} is {kind}, not a function (prediction, reference)")
    return Checked(function, plugins.describe(point))


def _lower_without_punctuation(text: str) -> str:
    if text.isascii():  # both in one pass
        return text.encode("ascii").translate(_LOWER, _PUNCTUATION).decode("ascii")
    # In UTF-8 an ASCII byte is always that character, and deleting bytes is many times
    # as quick as `str.translate` on text with one curly quote. "surrogatepass": any string passes.
    bare = text.lower().encode("utf-8", "surrogatepass").translate(None, _PUNCTUATION)
    return bare.decode("utf-8", "surrogatepass")


def _count_words(text: str) -> Words:
    """``Counter(normalize_answer(text).split())``, with articles looked for once a different word."""
    counts = Counter(_lower_without_punctuation(text).split())
    if odd := [word for word in counts if not word.isalnum()]:
        # A line a word, so that one pass of the regular expression does for all.
        for word, bare in zip(odd, _ARTICLE.sub(" ", "\n".join(odd)).split("\n"), strict=True):
            if word != bare:
                times = counts.pop(word)
                for part in bare.split():
                    counts[part] += times
    for article in _ARTICLES:
        counts.pop(article, None)
    return counts


_count_words_cached = lru_cache(maxsize=_CACHED_TARGETS)(_count_words)


def _multiset_f1(predicted: Words, real: Words) -> dict[str, float]:
    shared = 0
    for word in predicted.keys() & real.keys():
        times_predicted, times_real = predicted[word], real[word]
        shared += times_predicted if times_predicted < times_real else times_real  # several times as quick as min()
    if shared == 0:
        return {"f1": 0.0, "precision": 0.0, "recall": 0.0}
    precision, recall = shared / predicted.total(), shared / real.total()
    return {"f1": 2 * precision * recall / (precision + recall), "precision": precision, "recall": recall}


@cache
def _unicode_word() -> re.Pattern[str]:
    """One word: a character of `UNSPACED`, or a run of letters, digits and the vowel signs between them.

    `re` takes the vowel signs of Indic scripts for separators; that would cut Hindi words in pieces.
    """
    letters = rf"[^\W_{UNSPACED}]"
    unspaced = re.compile(f"[{UNSPACED}]")
    signs = "".join(
        char
        for char in map(chr, range(0x300, _LAST_SIGN + 1))
        if unicodedata.category(char) in ("Mc", "Mn") and not unspaced.match(char)
    )
    return re.compile(rf"[{UNSPACED}]|{letters}+(?:[{signs}]+{letters}*)*")


def _unicode_words(text: str) -> list[str]:
    """Words in order, accents and case folded."""
    folded = unicodedata.normalize("NFKD", text).casefold()
    if folded.isascii():
        return _ASCII_WORD.findall(folded)
    return _unicode_word().findall("".join(char for char in folded if not unicodedata.combining(char)))


def _plain_f1(prediction: str, reference: str) -> float:
    return f1_score(prediction, reference)["f1"]


SIMILARITIES: dict[str, Similarity] = {"f1": _plain_f1, "unicode_f1": unicode_f1, "rouge_l": rouge_l}
