"""Similarities by their published name: see `flip_plugin.text.similarity`."""

from flip_plugin.text.similarity import (
    ENTRY_POINT_GROUP,
    SIMILARITIES,
    Checked,
    Similarity,
    f1_score,
    get_similarity,
    normalize_answer,
    rouge_l,
    unicode_f1,
)

__all__ = [
    "ENTRY_POINT_GROUP",
    "SIMILARITIES",
    "Checked",
    "Similarity",
    "f1_score",
    "get_similarity",
    "normalize_answer",
    "rouge_l",
    "unicode_f1",
]
