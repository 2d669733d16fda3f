"""Where prompts come from: the data sets known by name with their columns, and the files behind a name.

A source says which columns hold the prompt and the labels. Files are local ones or those that
the hub lists for a data set; both are read by the same code (`reading.py`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flip_plugin.rows.checks import DatasetError

SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".json")


@dataclass(frozen=True)
class Source:
    """A data set's schema; of several names for a column the first that is there is taken.

    `required` are the kinds of column (fields of `Columns`) without which a file is refused;
    the others are used where they are there.
    """

    name: str
    hub: str | None
    prompt: tuple[str, ...]
    split: str = "train"
    id: tuple[str, ...] = ()
    language: tuple[str, ...] = ()
    toxic: tuple[str, ...] = ()
    redacted: tuple[str, ...] = ()
    moderation: tuple[str, ...] = ()
    required: tuple[str, ...] = ("prompt",)


@dataclass(frozen=True)
class Columns:
    """The columns of one file that are read. None: the file has no such label.

    prompt      a list of {role, content}, or the text of one user turn
    id          text that names the row in its source
    language    text, such as "English"
    toxic       true or false for the whole row
    redacted    true or false for the whole row
    moderation  a list with an object a turn; a true ``flagged`` makes the row toxic
    """

    prompt: str
    id: str | None = None
    language: str | None = None
    toxic: str | None = None
    redacted: str | None = None
    moderation: str | None = None


_LABELS: Any = {"language": ("language",), "redacted": ("redacted",)}

SOURCES = {
    source.name: source
    for source in (
        Source(
            "wildchat",
            "allenai/WildChat-1M",
            ("conversation",),
            id=("conversation_hash", "conversation_id"),
            toxic=("toxic",),
            required=("prompt", "language", "toxic", "redacted"),
            **_LABELS,
        ),
        Source(
            "lmsys",
            "lmsys/lmsys-chat-1m",
            ("conversation",),
            id=("conversation_id",),
            moderation=("openai_moderation",),
            required=("prompt", "language", "redacted", "moderation"),
            **_LABELS,
        ),
        Source("ultrafeedback", "openbmb/UltraFeedback", ("instruction", "prompt"), id=("prompt_id",)),
        Source(
            "messages",
            None,
            ("messages", "conversation", "prompt"),
            id=("id", "conversation_id", "prompt_id"),
            toxic=("toxic",),
            moderation=("openai_moderation",),
            **_LABELS,
        ),
    )
}


def choose_columns(source: Source, there: Collection[str], name: str) -> Columns:
    """The columns of `source` among those that a file has. DatasetError names the file and what is missing."""
    found: dict[str, Any] = {}
    for kind in ("prompt", "id", "language", "toxic", "redacted", "moderation"):
        wanted: tuple[str, ...] = getattr(source, kind)
        found[kind] = next((column for column in wanted if column in there), None)
        if found[kind] is None and kind in source.required:
            raise DatasetError(
                f"{name} has no column {' or '.join(wanted)}; it has {', '.join(sorted(there))}. "
                f"Is it a file of {source.hub or 'messages'}? --source names other schemas."
            )
    return Columns(**found)


def files_of(data: Sequence[str], split: str) -> list[str]:
    """The files behind names as typed: files, folders (all files below), or hub ids (a split's files).

    Sorted, each once. DatasetError for what is not there or cannot be read.
    """
    files: set[str] = set()
    for name in data:
        path = Path(name).expanduser()
        if path.is_file():
            found = [str(path)]
        elif path.is_dir():
            # Hidden ones are what a killed run left, or its .work.
            found = [
                str(file)
                for file in sorted(path.rglob("*"))
                if file.name.endswith(SUFFIXES) and not any(p.startswith(".") for p in file.relative_to(path).parts)
            ]
            if not found:
                raise DatasetError(f"{name}: no {', '.join(SUFFIXES)} file in this folder")
        elif name.startswith(("/", ".", "~")) or name.endswith(SUFFIXES):
            raise DatasetError(f"{name}: no such file or folder (the working folder is {Path.cwd()})")
        else:
            found = hub_files(name, split)
        bad = [file for file in found if not file.endswith(SUFFIXES)]
        if bad:
            raise DatasetError(f"{bad[0]}: only {', '.join(SUFFIXES)} files can be read")
        files.update(found)
    return sorted(files)


def public_name(name: str) -> str:
    """A local file or folder without the folders of one machine; an address or a hub id as it is."""
    return public_names([name])[name]


def public_names(names: Sequence[str]) -> dict[str, str]:
    """`public_name` of each; with as many of the folders before it as tell one file from the others."""
    there = {name: path for name in names if (path := Path(name).expanduser()).exists()}
    # Links are not followed: the hub's cache has its files' names in links alone.
    parts = {name: Path(os.path.abspath(path)).parts[1:] for name, path in there.items()}
    found = {name: name for name in names}
    left, depth = set(parts.values()), 0
    while left:
        depth += 1
        ends = Counter(own[-depth:] for own in left)
        done = {own for own in left if ends[own[-depth:]] == 1 or depth >= len(own)}
        found |= {name: "/".join(own[-depth:]) for name, own in parts.items() if own in done}
        left -= done
    return found


def hub_files(name: str, split: str) -> list[str]:
    """Addresses of a split's files, with the revision that they were listed at; nothing is downloaded."""
    import datasets

    try:
        listed = datasets.load_dataset_builder(name).config.data_files
    except Exception as error:  # the hub's errors have no common base class
        raise DatasetError(
            f"{name} could not be found: {type(error).__name__}: {error}\n"
            "Check the name, and that this machine can reach the Hugging Face hub; some data sets want their "
            "conditions accepted on their page first, and `hf auth login` here. Local files work without a network."
        ) from error
    if not listed or split not in listed:
        there = ", ".join(map(str, listed or ())) or "none"
        raise DatasetError(f"{name} has no split {split!r}; it has {there}. Choose one with --split")
    return [str(file) for file in listed[split]]


def split_name(name: str) -> tuple[str, str, str]:
    """``PLACE[:SPLIT][#COLUMN]`` -> (place, split, column), each as typed; "" for what is not there."""
    where, _, column = name.partition("#")
    if Path(where).expanduser().exists():
        return where, "", column
    place, _, split = where.partition(":")
    return place, split, column


def evaluation_files(name: str) -> list[str]:
    """The files that hold the prompts of ``FILE_OR_FOLDER_OR_HUB_ID[:SPLIT][#COLUMN]``; the hub's with their revision.

    DatasetError for what is not there.
    """
    place, split, _ = split_name(name)
    file = Path(place).expanduser()
    return [str(file)] if place.endswith(".txt") and file.is_file() else files_of([place], split or "test")
