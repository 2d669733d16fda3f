"""Reading a run's rows before any model is loaded: files, folders and data sets of the hub, each cut to its share.

What a row must hold is checked by `flip_plugin.rows.checks`, which `python -m datasets_prep.validate` runs as well.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flip_plugin.rows.checks import (
    CONTRACT_COLUMNS,
    ORIGIN,
    ORIGIN_ROW,
    DatasetError,
    require_columns,
    validate_text,
)
from flip_plugin.rows.reading import numbered_rows, open_parquet, split_defects

if TYPE_CHECKING:  # slow to import, and `--help` should not wait for it
    from datasets import Dataset

Row = dict[str, Any]

FILE_TYPES = (".jsonl", ".json", ".parquet")


def load_dataset_mixer(dataset_mixer_list: Sequence[str], splits: Sequence[str], seed: int) -> Dataset:
    """The rows of several data sets, one after the other, each cut to its share.

    `dataset_mixer_list` holds pairs, as typed: a name, and how much of it. A name is a .jsonl, .json
    or .parquet file, a folder (`save_to_disk`, or files of rows), or a Hugging Face id. An amount
    with a point is a share (`1.0`: all), one without a number of rows. `splits` has one split for
    each name, or one for all; files have no splits, and ignore it. The same seed takes the same rows.

    >>> load_dataset_mixer(["rows.jsonl", "1.0", "allenai/some-rows", "512"], ["train"], seed=1)  # doctest: +SKIP
    """
    if not dataset_mixer_list or len(dataset_mixer_list) % 2:
        raise DatasetError(
            f"data sets are given as pairs of name and amount, such as: rows.jsonl 1.0. Got {list(dataset_mixer_list)}"
        )
    names, amounts = dataset_mixer_list[::2], dataset_mixer_list[1::2]
    if len(splits) not in (1, len(names)):
        raise DatasetError(f"{len(names)} data sets, but {len(splits)} splits: give one for each, or one for all")
    parts = []
    for position, (name, amount) in enumerate(zip(names, amounts, strict=True)):
        rows = _read(name, splits[position if len(splits) > 1 else 0])
        if not len(rows):
            raise DatasetError(f"{name} holds no rows")
        require_columns(rows.column_names, name)
        rows = _with_origin(rows, name)
        keep = _choose(len(rows), amount, name, random.Random(seed + position))
        parts.append(rows if len(keep) == len(rows) else rows.select(keep))
    return _concatenate(parts)


def _read(name: str, split: str) -> Dataset:
    """The rows of one data set, whatever kind of source its name is."""
    path = Path(name).expanduser()
    if path.is_file():
        return _from_file(path, name)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return _from_saved(path, name, split)
    if not path.is_dir() and (path.suffix.lower() in FILE_TYPES or name.startswith(("/", ".", "~"))):
        raise DatasetError(f"{name}: no such file or folder (the working folder is {Path.cwd()})")
    return _from_folder_or_hub(path, name, split)


def _from_file(path: Path, name: str) -> Dataset:
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".json"):
        return _from_rows(list(numbered_rows(str(path))), name)
    if suffix == ".parquet":
        return _from_parquet(path, name)
    raise DatasetError(f"{name}: only .jsonl, .json and .parquet files can be read, not {suffix or 'no suffix'}")


def _from_saved(path: Path, name: str, split: str) -> Dataset:
    """A folder that `save_to_disk` made."""
    import datasets

    saved = datasets.load_from_disk(str(path))
    if isinstance(saved, datasets.Dataset):
        return saved
    if split not in saved:
        raise DatasetError(f"{name} has no split {split!r}; it has {', '.join(map(str, saved))}")
    return saved[split]


def _from_folder_or_hub(path: Path, name: str, split: str) -> Dataset:
    import datasets

    try:
        files = _folder_files(path, split) if path.is_dir() else []
        if not files:
            return datasets.load_dataset(name, split=split)
    except Exception as error:  # the hub's errors have no common base class
        raise DatasetError(
            f"{name}, split {split!r}, could not be loaded: {type(error).__name__}: {error}\n"
            "Check the name and the split, and that this machine can reach the Hugging Face hub or has it cached; "
            "or give a local .jsonl or .parquet file."
        ) from error
    parts = []
    for file in files:  # each by itself, so that a row is named by its file and its number there
        rows = _read(file, split)
        if len(rows):  # of a shard without rows, there may be no columns either
            require_columns(rows.column_names, file)
            parts.append(_with_origin(rows, file))
    return _concatenate(parts) if parts else datasets.Dataset.from_dict({})


def _folder_files(folder: Path, split: str) -> list[str]:
    """The files that `datasets` takes for a folder's split, in its order; [] where any is of another format."""
    import datasets

    listed = datasets.load_dataset_builder(str(folder)).config.data_files or {}
    files = [str(file) for file in listed.get(split, ())]
    return files if all(file.endswith(FILE_TYPES) for file in files) else []


def _from_rows(numbered: list[tuple[int, Row]], name: str) -> Dataset:
    from datasets import Dataset

    validate_text(row | {ORIGIN: name, ORIGIN_ROW: number} for number, row in numbered)
    # Dataset.from_list would take the columns of the first row alone.
    columns = dict.fromkeys(key for _, row in numbered for key in row)
    values: dict[str, list[Any]] = {column: [row.get(column) for _, row in numbered] for column in columns}
    values[ORIGIN] = [name] * len(numbered)
    values[ORIGIN_ROW] = [number for number, _ in numbered]
    # Content may be text in one row and parts in another, ground_truth text or a list.
    return Dataset.from_dict(values, on_mixed_types="use_json")


def _from_parquet(path: Path, name: str) -> Dataset:
    from datasets import Dataset
    from datasets.exceptions import DatasetGenerationError

    with path.open("rb") as file:
        if not open_parquet(file, name).metadata.num_rows:
            return Dataset.from_dict({})  # `datasets` cannot make any of none
    try:
        rows = Dataset.from_parquet(str(path))
    except DatasetGenerationError as error:
        why = error.__cause__ or error
        raise DatasetError(f"{name}: the file cannot be read: {why}. Fetch or write it anew.") from error
    before = 0
    for piece in rows.data.to_batches():
        for defect in split_defects(piece, before, name)[2]:
            raise DatasetError(str(defect))
        before += piece.num_rows
    return rows


def _with_origin(rows: Dataset, name: str) -> Dataset:
    if ORIGIN_ROW in rows.column_names:
        return rows
    rows = rows.remove_columns([column for column in (ORIGIN, "index") if column in rows.column_names])
    rows = rows.add_column(ORIGIN, [name] * len(rows))
    return rows.add_column(ORIGIN_ROW, list(range(1, len(rows) + 1)))


def _choose(total: int, amount: str, name: str, generator: random.Random) -> list[int]:
    """Positions to keep, in their old order."""
    try:
        count = round(float(amount) * total) if "." in amount else int(amount)
    except ValueError:
        raise DatasetError(
            f"{name}: the amount {amount!r} is neither a share (0.5) nor a number of rows (64)"
        ) from None
    if not 0 < count <= total:
        raise DatasetError(f"{name}: {amount} asks for {count} rows of {total}; 1.0 takes all, 64 takes 64")
    return list(range(total)) if count == total else sorted(generator.sample(range(total), count))


def _concatenate(parts: list[Dataset]) -> Dataset:
    if len(parts) == 1:
        return parts[0]
    from datasets import Dataset, concatenate_datasets

    columns = [*CONTRACT_COLUMNS, ORIGIN, ORIGIN_ROW]
    parts = [part.select_columns(columns) for part in parts]
    if all(part.features == parts[0].features for part in parts):
        return concatenate_datasets(parts)
    # Sets differ in details, such as extra keys of a message: go through plain Python.
    values: dict[str, list[Any]] = {column: [value for part in parts for value in part[column]] for column in columns}
    return Dataset.from_dict(values, on_mixed_types="use_json")
