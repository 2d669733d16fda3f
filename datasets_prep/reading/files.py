"""The files behind a name as typed: local files and folders, or those that the hub lists for a data set's split."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from flip_plugin.rows.checks import DatasetError

SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".json")
# Of a prepared folder: what the data set says of itself, no rows.
CARD = "card.json"


def files_of(data: Sequence[str], split: str) -> list[str]:
    """The files behind names as typed: files, folders (all files below), or hub ids (a split's files).

    Sorted, each once. DatasetError for what is missing or cannot be read.
    """
    files: set[str] = set()
    for name in data:
        behind = _files_behind(name, split)
        for file in behind:
            if not file.endswith(SUFFIXES):
                raise DatasetError(f"{file}: only {', '.join(SUFFIXES)} files can be read")
        files.update(behind)
    return sorted(files)


def _files_behind(name: str, split: str) -> list[str]:
    path = Path(name).expanduser()
    if path.is_file():
        return [str(path)]
    if path.is_dir():
        # Hidden ones are what a killed run left, or its .work.
        files = [
            str(file)
            for file in sorted(path.rglob("*"))
            if file.name.endswith(SUFFIXES) and not any(p.startswith(".") for p in file.relative_to(path).parts)
        ]
        if not files:
            raise DatasetError(f"{name}: no {', '.join(SUFFIXES)} file in this folder")
        return files
    if name.startswith(("/", ".", "~")) or name.endswith(SUFFIXES):
        raise DatasetError(f"{name}: no such file or folder (the working folder is {Path.cwd()})")
    return hub_files(name, split)


def public_name(name: str) -> str:
    """A local file or folder without the folders of one machine; an address or a hub id as it is."""
    return public_names([name])[name]


def public_names(names: Sequence[str]) -> dict[str, str]:
    """`public_name` of each; with as many of the folders before it as tell one file from the others."""
    local = {name: path for name in names if (path := Path(name).expanduser()).exists()}
    # Links are not followed, as Path.resolve would: in the hub's cache, links alone have the files' names.
    parts = {name: Path(os.path.abspath(path)).parts[1:] for name, path in local.items()}  # noqa: PTH100 - see above
    public = {name: name for name in names}
    left, depth = set(parts.values()), 0
    while left:
        depth += 1
        ends = Counter(own[-depth:] for own in left)
        done = {own for own in left if ends[own[-depth:]] == 1 or depth >= len(own)}
        public |= {name: "/".join(own[-depth:]) for name, own in parts.items() if own in done}
        left -= done
    return public


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
        splits = ", ".join(map(str, listed or ())) or "none"
        raise DatasetError(f"{name} has no split {split!r}; it has {splits}. Choose one with --split")
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


def row_files(name: str, split: str) -> list[str]:
    """Files of rows behind a name; the card of a prepared folder is none. DatasetError where there is no other."""
    files = [file for file in files_of([name], split) if PurePosixPath(file).name != CARD]
    if not files:
        raise DatasetError(f"{name} holds no rows, only a {CARD}")
    return files
