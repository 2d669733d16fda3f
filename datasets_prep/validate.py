"""Check training rows as the trainer checks them, and say which row is wrong and why.

    python -m datasets_prep.validate train.jsonl more.parquet
    python -m datasets_prep.validate someone/rows --split train

It refuses what the trainer refuses, in the same words (`flip_plugin.rows.checks`): malformed files, missing columns,
unknown verifiers, labels that their verifier cannot use, prompts without a user turn. The exit status is 1 then. Of the
files of a folder, some may be without rows. It names, but does not refuse, rows of general-flip whose ground_truth is
neither the system prompt nor the last user turn of their messages.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

from tqdm import tqdm

from datasets_prep.reading.files import row_files
from flip_plugin.prompts.target import NoTarget, find_target
from flip_plugin.rows.checks import (
    FLIP_VERIFIER,
    ORIGIN,
    ORIGIN_ROW,
    DatasetError,
    labels_by_verifier,
    require_columns,
    validate_rows,
)
from flip_plugin.rows.reading import numbered_rows
from flip_plugin.rows.verifier_names import known_verifiers


class _Seen:
    """Rows of a file as they pass: their columns, how many, and those with a label that is no turn of theirs."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.columns: dict[str, None] = {}
        self.rows = 0
        self.elsewhere: list[int] = []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number, row in tqdm(numbered_rows(self.file), self.file, unit="row", unit_scale=True, delay=1):
            self.rows += 1
            self.columns.update(dict.fromkeys(row))
            if _elsewhere(row):
                self.elsewhere.append(number)
            yield row | {ORIGIN: self.file, ORIGIN_ROW: number}


def validate_file(file: str, verifiers: Collection[str], *, alone: bool = True) -> tuple[int, list[int]]:
    """(rows, numbers of the rows whose label is no turn of theirs). Raises `DatasetError` as the trainer does.

    A file that is not `alone`, but one of a folder, may be without rows.
    """
    seen = _Seen(file)
    problem: DatasetError | None = None
    try:
        validate_rows(seen, verifiers)
    except DatasetError as error:
        problem = error
    if seen.columns:
        require_columns(seen.columns, file)
    if problem is not None:
        raise problem
    if alone and not seen.rows:
        raise DatasetError(f"{file} holds no rows")
    return seen.rows, seen.elsewhere


def _elsewhere(row: Mapping[str, Any]) -> bool:
    """Whether a row's text to be recovered is neither its system prompt nor its last user turn."""
    try:
        label = dict(labels_by_verifier(row["dataset"], row["ground_truth"])).get(FLIP_VERIFIER)
        if not isinstance(label, str):
            return False
        turns = [find_target(row["messages"], "user").instruction]
    except (KeyError, TypeError, ValueError):  # malformed: the checks tell
        return False
    with suppress(NoTarget):
        turns.append(find_target(row["messages"], "system").instruction)
    return label.strip() not in turns


def main(argv: list[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m datasets_prep.validate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", nargs="+", metavar="WHERE", help="files, folders or hub ids")
    parser.add_argument("--split", default="train", help="split of a hub id (default train)")
    parser.add_argument("--verifiers", nargs="+", default=(), help="known names (default: all that are installed)")
    args = parser.parse_args(argv)
    try:
        verifiers = args.verifiers or known_verifiers()
        for name in args.data:
            _validate(name, args.split, verifiers)
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _validate(name: str, split: str, verifiers: Collection[str]) -> None:
    total = 0
    for file in row_files(name, split):
        rows, elsewhere = validate_file(file, verifiers, alone=False)
        total += rows
        print(f"{file}: {rows:,} rows, all good" if rows else f"{file}: no rows")
        if elsewhere:
            some = ", ".join(map(str, elsewhere[:10])) + (", ..." if len(elsewhere) > 10 else "")
            print(f"  note: the ground_truth of {len(elsewhere)} rows is no turn of their messages: {some}")
    if not total:
        raise DatasetError(f"{name} holds no rows")


if __name__ == "__main__":
    raise SystemExit(main())
