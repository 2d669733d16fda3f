"""Turn rows of one judge type into rows of another, without touching anything else.

    python -m datasets_prep.tag --judge_type general-quality --input DIR_OR_FILE --output DIR_OR_FILE

Of the column `dataset` the names general-* are replaced; names of other verifiers (gsm8k, ifeval) stay, alone or in a
row's list. Every other column, the order of rows and the format (Parquet, or JSON Lines, packed where --output ends in
.gz) stay as they are, so two sets differ in `dataset` alone. A folder made by `datasets_prep.wildchat` keeps its card,
with the new judge type. No file is replaced before all are whole; where an older file of rows would stay beside the new
ones and be read with them, nothing is written.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datasets_prep.reading.files import CARD, SUFFIXES, row_files
from datasets_prep.writing.card import card_json, card_text
from datasets_prep.writing.files import write_all
from flip_plugin.rows.checks import DatasetError
from flip_plugin.rows.reading import BATCH_ROWS, numbered_rows, open_file, open_parquet, parquet_pieces, split_defects
from flip_plugin.rows.verifier_names import dataset_of

_JUDGED = "general-"


def retag(value: Any, dataset: str) -> Any:
    """A `dataset` value with its judge type replaced. ValueError says why it cannot be."""
    if isinstance(value, str):
        return dataset if value.strip().lower().startswith(_JUDGED) else value
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise ValueError(f"must be a verifier's name or a list of names, but is {value!r:.60}")
    names = [retag(name, dataset) for name in value]
    if len(set(names)) < len(set(value)):
        raise ValueError(f"would name {dataset} twice: {', '.join(value)}")
    return names


def tag_file(source: str, target: Path, dataset: str) -> str:
    """Write `source` to `target` with other tags. Returns in words how many rows it has, and how many with a judge.

    DatasetError names the row, or says that no row has a judge; a file without rows is written without rows.
    """
    counts = [0, 0]
    (_tag_parquet if source.endswith(".parquet") else _tag_json)(source, target, dataset, counts)
    if counts[0] and not counts[1]:
        raise DatasetError(f"{source}: no row names a judge ({_JUDGED}...) in its column dataset")
    return f"{counts[0]:,} rows, {counts[1]:,} of them {dataset}"


def _has_rows(file: str) -> bool:
    if not file.endswith(".parquet"):
        return any(True for _ in numbered_rows(file))
    with open_file(file) as handle:
        return open_parquet(handle, file).metadata.num_rows > 0


def _tags(values: list[Any], first: int, source: str, dataset: str, counts: list[int]) -> Iterator[Any]:
    for number, value in enumerate(values, start=first):
        try:
            new = retag(value, dataset)
        except ValueError as error:
            raise DatasetError(f"row {number} of {source}, dataset: {error}") from error
        names = [new] if isinstance(new, str) else new
        counts[0] += 1
        counts[1] += dataset in names
        yield new


def _tag_json(source: str, temporary: Path, dataset: str, counts: list[int]) -> None:
    opened: Any = gzip.open if temporary.suffix == ".gz" else open
    # Half a surrogate pair, which UTF-8 cannot write, becomes the JSON escape that it was read from.
    with opened(temporary, "wt", encoding="utf-8", errors="backslashreplace") as file:
        for number, row in tqdm(numbered_rows(source), source, unit="row", unit_scale=True, delay=1):
            tags = _tags([row.get("dataset")], number, source, dataset, counts)
            file.write(json.dumps(row | {"dataset": next(tags)}, ensure_ascii=False) + "\n")


def _tag_parquet(source: str, temporary: Path, dataset: str, counts: list[int]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_file(source) as handle:
        parquet = open_parquet(handle, source)
        schema = parquet.schema_arrow
        place = schema.get_field_index("dataset")
        if place < 0 and parquet.metadata.num_rows:
            raise DatasetError(f"{source} lacks the column dataset; it has {', '.join(schema.names)}")
        with pq.ParquetWriter(temporary, schema) as writer:
            for batch in tqdm(parquet_pieces(parquet, source), source, unit=f"{BATCH_ROWS} rows", delay=1):
                for defect in split_defects(batch.select([place]), counts[0], source)[2]:
                    raise DatasetError(str(defect))
                tags = _tags(batch.column(place).to_pylist(), counts[0] + 1, source, dataset, counts)
                column = pa.array(list(tags), type=schema.field(place).type)
                writer.write_batch(batch.set_column(place, schema.field(place), column))


def main(argv: list[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m datasets_prep.tag",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--judge_type", required=True, help="flip, quality, or a name; general-quality is the same")
    parser.add_argument("--input", required=True, metavar="WHERE", help="a file, a folder, or a hub id")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR_OR_FILE", help="a folder for a folder")
    parser.add_argument("--split", default="train", help="split of a hub id (default train)")
    args = parser.parse_args(argv)
    try:
        tag(args.input, args.output, dataset_of(args.judge_type), args.split)
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def tag(source: str, output: Path, dataset: str, split: str = "train") -> None:
    """`main` without its command line."""
    files = row_files(source, split)
    if not any(map(_has_rows, files)):
        raise DatasetError(f"{source} holds no rows")
    one = Path(source).is_file()
    targets = [output if one and output.suffix else output / Path(file).name for file in files]
    if len(set(targets)) < len(targets):
        raise DatasetError(f"{source} has files of one name in several folders: tag them one by one")
    writes: dict[Path, Callable[[Path], str]] = {}
    for file, target in zip(files, targets, strict=True):
        if target.exists() and "://" not in file and target.samefile(file):
            raise DatasetError(f"{target} is the input itself: choose another --output")
        if (target.suffix == ".parquet") != file.endswith(".parquet"):
            raise DatasetError(f"{target}: the format stays, so it must end like {file}")
        writes[target] = partial(tag_file, file, dataset=dataset)
    _refuse_older(targets, files, one)
    card = Path(source) / CARD
    if not one and card.is_file():
        values = json.loads(card.read_text(encoding="utf-8"))
        values |= {"dataset": dataset, "judge_type": dataset.removeprefix(_JUDGED), "identity": None}
        writes[output / CARD] = partial(_write_text, card_json(values))
        writes[output / "card.md"] = partial(_write_text, card_text(values, targets[0].name))
    for target, words in write_all(writes).items():
        print(f"{target}: {words}")


def _refuse_older(targets: list[Path], files: list[str], one: bool) -> None:
    """DatasetError for a file of rows that would be read with the new ones, or in their place.

    Where a folder is tagged, that is any other one beside them; of a single file, one of its name in another format.
    """
    names = {_plain(target.name) for target in targets}
    for file in sorted(targets[0].parent.glob("[!.]*")):
        if file in targets or file.name == CARD or not file.name.endswith(SUFFIXES):
            continue
        if any(file.samefile(source) for source in files if "://" not in source):
            continue
        if not one or _plain(file.name) in names:
            raise DatasetError(
                f"{file} is there already and is none of the new files: who reads {file.parent} would read it with "
                "them, or alone. Remove it, or choose another --output"
            )


def _plain(name: str) -> str:
    return re.sub(r"\.(parquet|json|jsonl(\.gz)?)$", "", name)


def _write_text(text: str, target: Path) -> str:
    target.write_text(text, encoding="utf-8")
    return "the set's card"


if __name__ == "__main__":
    raise SystemExit(main())
