"""One reading of a prompt's text for comparing prompts: duplicates, near-duplicates, evaluation prompts."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence

_WORD = re.compile(r"\w+")


def normalise(text: str) -> str:
    """Text without what a copy may differ in: Unicode forms (NFKC), case, kinds and amounts of white space."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(text.lower().split())


def words_of(text: str) -> list[str]:
    """The words of a normalised text, without punctuation."""
    return _WORD.findall(text)


def prompt_text(messages: Sequence[Mapping[str, str]]) -> str:
    """All turns of a prompt as one normalised text; a lone user turn is that turn."""
    if len(messages) == 1:
        return normalise(messages[0]["content"])
    return "\n".join(f"{turn['role']}: {normalise(turn['content'])}" for turn in messages)


def sampling_key(text: str, seed: int) -> int:
    """64 bits from a seed and a normalised text: equal for copies, otherwise a draw at random.

    Rows in ascending order of their keys are in a random order that depends on nothing but the
    texts and the seed. Two different texts of a million meet with a probability of 3e-8.
    """
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=str(seed).encode())
    return int.from_bytes(digest.digest(), "big")
