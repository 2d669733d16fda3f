"""The names that a row's `dataset` column may hold."""

from __future__ import annotations

from flip_plugin.rows.checks import DatasetError

# The `dataset` column of each judge type; other judge types are general-NAME.
JUDGE_TYPES = {"flip": "general-flip", "quality": "general-quality"}


def dataset_of(judge_type: str) -> str:
    """The `dataset` column of a judge type, given as ``flip`` or as ``general-flip``."""
    name = judge_type.strip().lower()
    if not name:
        raise DatasetError("--judge_type is empty: flip, quality, or the name of another judge type")
    return name if name.startswith("general-") else JUDGE_TYPES.get(name, f"general-{name}")
