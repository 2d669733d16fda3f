"""Prompts of a public or local data set -> a training set for a GRPO run, filtered, without copies, sampled.

    python -m datasets_prep.wildchat --judge_type flip --num_prompts 12000 --output DIR
    python -m datasets_prep.prepare --source lmsys --judge_type flip --num_prompts 12000 --output DIR
    python -m datasets_prep.prepare --source messages --data rows.jsonl --judge_type quality --output DIR

DIR gets train.jsonl (messages, ground_truth, dataset), card.md and card.json with a count at each filter.
The same settings give the same bytes. A run that was stopped or killed goes on where it was.
docs/datasets.md explains the filters and how to add a source.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datasets_prep.filters.decontaminate import evaluation_prompts
from datasets_prep.filters.languages import language_name
from datasets_prep.filters.lengths import TokenCounter
from datasets_prep.filters.parallel import EVALUATION_PROMPTS, filter_units, read_counts, unit_file
from datasets_prep.publish import check_login, push
from datasets_prep.reading.files import files_of
from datasets_prep.reading.sources import SOURCES
from datasets_prep.reading.units import plan_units
from datasets_prep.settings import Settings, fingerprint
from datasets_prep.writing.card import card_json, card_text, make_card
from datasets_prep.writing.files import write_rows
from datasets_prep.writing.sampling import Drawing, Taken, draw
from flip_plugin.files.atomic import write_text
from flip_plugin.files.locks import InUseError, folder_lock
from flip_plugin.prompts.target import find_target
from flip_plugin.rows.checks import ORIGIN, DatasetError, validate_rows
from flip_plugin.rows.verifier_names import dataset_of

PAPER_POLICY = "allenai/Olmo-3-7B-Think-DPO"


def parse(argv: list[str] | None, source: str | None) -> argparse.Namespace:
    """The command line; `source` is fixed by the command or to be named."""
    parser = argparse.ArgumentParser(
        prog=f"python -m datasets_prep.{source or 'prepare'}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if source is None:
        parser.add_argument("--source", choices=sorted(SOURCES), required=True, help="schema of the rows")
    add = parser.add_argument
    add("--judge_type", required=True, help="who is to score responses: flip, quality, or another judge type's name")
    add("--output", type=Path, required=True, metavar="DIR", help="folder for the rows and the card")
    add("--num_prompts", default="12000", metavar="N", help="rows to draw, or all (default 12000, as in the paper)")
    add(
        "--data", nargs="+", metavar="WHERE", help="files, folders or hub ids of the schema (default: the source's own)"
    )
    add("--split", help="split of a hub id (default train)")
    add("--seed", type=int, default=1, help="another seed draws other rows (default 1)")
    add("--format", choices=("jsonl", "parquet"), default="jsonl", help="of the rows (default jsonl)")
    add("--keep_id", action="store_true", help="a further column `id`: the row's id in its source")
    add("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: the machine's cores)")
    add("--overwrite", action="store_true", help="replace what another run left in DIR")
    add("--keep_work", action="store_true", help="leave DIR/.work, so that another --num_prompts need not filter again")
    _add_filters(parser.add_argument_group("filters").add_argument)
    hub = parser.add_argument_group("publishing")
    hub.add_argument("--push_to_hub", metavar="NAME", help="also upload to this data set (private when it is new)")
    hub.add_argument("--public", action="store_true", help="a new data set on the hub is public")
    args = parser.parse_args(argv)
    args.source = source or args.source
    return args


def _add_filters(add: Any) -> None:
    defaults = Settings("", (), PAPER_POLICY)
    add("--language", default="English", help="to keep, or any (default English)")
    add("--keep_toxic", action="store_true", help="keep rows whose label says toxic")
    add("--keep_redacted", action="store_true", help="keep rows whose label says that personal data was redacted")
    add("--turns", choices=("first", "full"), default="first", help="up to the first or the last user turn")
    add(
        "--target",
        choices=("auto", "user", "system"),
        default="auto",
        help="text to recover: auto is the system prompt where there is one, else the last user turn",
    )
    add(
        "--tokenizer",
        default=PAPER_POLICY,
        help=f"hub id or folder; lengths are in its tokens (default {PAPER_POLICY})",
    )
    for name, what in (
        ("min_tokens", "least tokens of the text to recover"),
        ("max_tokens", "most tokens of it"),
        ("max_prompt_tokens", "most tokens of all turns"),
        ("shingle", "bytes of the pieces compared"),
        ("ngram", "words of an n-gram of --decontaminate"),
        ("unit_rows", "rows of one piece of work"),
    ):
        value = getattr(defaults, name)
        add(f"--{name}", type=int, default=value, metavar="N", help=f"{what} (default {value})")
    add(
        "--near_duplicates",
        type=float,
        default=0.8,
        metavar="S",
        help="similarity of near-duplicates; 0: off (default 0.8)",
    )
    add(
        "--decontaminate",
        nargs="+",
        default=(),
        metavar="WHERE",
        help="evaluation prompts: FILE_OR_ID[:SPLIT][#COLUMN]",
    )
    add("--overlap", type=float, default=0.5, metavar="S", help="share of an evaluation prompt's n-grams (default 0.5)")
    add("--skip_malformed", action="store_true", help="count malformed rows instead of stopping at the first")


def settings_of(args: argparse.Namespace) -> Settings:
    """Settings from the command line, with the source's files looked up."""
    hub = SOURCES[args.source].hub
    data = args.data or ([hub] if hub else [])
    if not data:
        raise DatasetError("--source messages has no data set of its own: name files or hub ids with --data")
    if args.num_prompts != "all" and not args.num_prompts.isdecimal():
        raise DatasetError(f"--num_prompts must be a number or all, not {args.num_prompts!r}")
    if args.workers < 1:
        raise DatasetError(f"--workers must be at least 1, not {args.workers}")
    chosen = {name: getattr(args, name) for name in Settings.__dataclass_fields__ if name in args}
    chosen |= {
        "files": tuple(files_of(data, args.split or SOURCES[args.source].split)),
        "num_prompts": None if args.num_prompts == "all" else int(args.num_prompts),
        "language": None if args.language.lower() == "any" else language_name(args.language),
        "decontaminate": tuple(args.decontaminate),
    }
    settings = Settings(**chosen)
    settings.check()
    return settings


def prepare(settings: Settings, judge_type: str, output: Path, **options: Any) -> dict[str, Any]:
    """Make the training set in `output`; returns its card. See `run` for the options."""
    dataset = dataset_of(judge_type)
    output.mkdir(parents=True, exist_ok=True)
    with _locked(output):
        return run(settings, judge_type, dataset, output, **options)


def run(
    settings: Settings,
    judge_type: str,
    dataset: str,
    output: Path,
    *,
    workers: int = 1,
    file_format: str = "jsonl",
    keep_id: bool = False,
    keep_work: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """`prepare`, with `output` locked. Raises `DatasetError` for what a user can correct."""
    path = output / f"train.{file_format}"
    filters = settings.of_filters()
    identity = fingerprint([filters, asdict(settings), dataset, keep_id])
    if (done := _finished(output, path, identity, overwrite)) is not None:
        print(f"{path} is what this command makes: nothing to do")
        return done
    work = _work_folder(output, filters)
    TokenCounter.load(settings.tokenizer)  # fails here, and not in a worker
    if settings.decontaminate and not (work / EVALUATION_PROMPTS).exists():
        write_text(work / EVALUATION_PROMPTS, json.dumps(list(evaluation_prompts(settings.decontaminate))))
    units = plan_units(settings.files, SOURCES[settings.source], settings.unit_rows)
    filter_units(units, settings, work, workers)
    files = [unit_file(work, number) for number in range(len(units))]
    drawn = Drawing()
    taken = tqdm(draw(files, settings, drawn, workers), "sampling", settings.num_prompts, unit="prompt", mininterval=1)

    def ready() -> None:
        if not drawn.taken:
            raise DatasetError(f"no row is left of {', '.join(settings.files)}: {_where_rows_went(files)}")
        _remove_older(output, path)

    write_rows(_checked(_rows(taken, settings, dataset, keep_id), dataset), path, ready)
    card = make_card(settings, judge_type, dataset, [read_counts(file) for file in files], drawn, identity)
    write_text(output / "card.md", card_text(card, path.name))
    write_text(output / "card.json", card_json(card))
    if not keep_work:
        shutil.rmtree(work)
    return card


def _rows(taken: Iterable[Taken], settings: Settings, dataset: str, keep_id: bool) -> Iterator[dict[str, Any]]:
    for row in taken:
        target = find_target(row.messages, settings.target).instruction
        yield {"messages": row.messages, "ground_truth": target, "dataset": dataset} | (
            {"id": row.id} if keep_id else {}
        )


def _checked(rows: Iterable[dict[str, Any]], dataset: str) -> Iterator[dict[str, Any]]:
    for row in rows:
        validate_rows([row | {ORIGIN: "the sample"}], {dataset})
        yield row


def _where_rows_went(files: list[Path]) -> str:
    sums: dict[str, int] = {}
    for file in files:
        for name, count in read_counts(file)["counts"].items():
            sums[name] = sums.get(name, 0) + count
    return ", ".join(f"{name} {count}" for name, count in sums.items() if count)


def _finished(output: Path, path: Path, identity: str, overwrite: bool) -> dict[str, Any] | None:
    """The card of a finished run of the same settings; DatasetError where DIR holds something else."""
    card = output / "card.json"
    if not card.exists():
        if path.exists() and not (output / ".work").exists() and not overwrite:
            raise DatasetError(f"{path} is there already, without a card: choose another --output, or --overwrite")
        return None
    old = json.loads(card.read_text(encoding="utf-8"))
    if old.get("identity") == identity and path.exists():
        return old
    if not overwrite:
        raise DatasetError(
            f"{output} holds a data set that was made with other settings, of other files, or by another version: "
            "choose another --output, or --overwrite"
        )
    return None


def _remove_older(output: Path, path: Path) -> None:
    """What another run left and `path` is about to replace: until then it stays, whatever goes wrong."""
    (output / "card.json").unlink(missing_ok=True)
    for name in {"train.jsonl", "train.parquet"} - {path.name}:  # beside the new rows it would be read as more rows
        (output / name).unlink(missing_ok=True)


def _work_folder(output: Path, wanted: dict[str, Any]) -> Path:
    """DIR/.work with what an earlier run of the same filters finished; emptied where the filters were others."""
    work = output / ".work"
    note = work / "filters.json"
    if work.exists() and (not note.exists() or json.loads(note.read_text()) != json.loads(json.dumps(wanted))):
        print("the filters or the sources have changed since the last run: all is read again", file=sys.stderr)
        shutil.rmtree(work)
    work.mkdir(exist_ok=True)
    if not note.exists():
        write_text(note, json.dumps(wanted))
    return work


@contextmanager
def _locked(output: Path) -> Generator[None, None, None]:
    """One run a folder at a time; the lock goes with the process, however it ends."""
    lock = folder_lock(output)
    try:
        lock.acquire()
    except InUseError as error:
        raise DatasetError(
            f"another run is writing to {output}{error.holder}: wait for it, or choose another --output"
        ) from None
    try:
        yield
    finally:
        lock.release()


def main(argv: list[str] | None = None, source: str | None = None) -> int:
    """The command; errors that a user can correct end with a sentence."""
    args = parse(argv, source)
    try:
        if args.push_to_hub:
            check_login(args.push_to_hub)
        settings = settings_of(args)
        card = prepare(
            settings,
            args.judge_type,
            args.output,
            workers=args.workers,
            file_format=args.format,
            keep_id=args.keep_id,
            keep_work=args.keep_work,
            overwrite=args.overwrite,
        )
        print(f"{args.output}: {card['rows']:,} rows of {card['read']:,} read, dataset {card['dataset']}; see card.md")
        if settings.num_prompts and card["rows"] < settings.num_prompts:
            print(f"warning: {settings.num_prompts:,} were asked for; card.md says where rows went", file=sys.stderr)
        if args.push_to_hub:
            print(push(args.output, args.push_to_hub, f"train.{args.format}", public=args.public))
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
