"""``flip eval report``: finished evaluations and training runs as one page, Markdown, JSON and CSV.

In the order in which a report is made: `input` (runs, training runs, sizes of judges, the paper's numbers), `claims`
with their verdicts, `output` (`tables` and `charts` by `sections`, `inspection` of single items, `files` for Markdown,
JSON and CSV, `page` for HTML).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

DESCRIPTION = """\
Put finished evaluations beside each other and beside the paper's numbers: report.html (one file, no network),
report.md, report.json and cells.csv. Folders are those of `flip eval ...`, and training runs of the GRPO
trainer (with metrics.jsonl); a folder of runs stands for all of them.

  flip eval report runs/rewardbench2 runs/robustness runs/grpo_table --output runs/report
  flip eval report runs --sizes small=0.28M medium=0.56M large=1.05M --output report

Every number has its 95% interval and the invalid share beside it; each claim of the paper is compared with ours.
"""
FILES = ("report.html", "report.md", "report.json", "cells.csv")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``flip eval report``."""
    from flip_plugin.evals.report.output.inspection import MAX_ITEMS

    parser.add_argument("run_dirs", nargs="+", type=Path, metavar="RUN_DIR", help="folders of runs")
    parser.add_argument("--output", required=True, type=Path, help="folder for the report's files")
    parser.add_argument(
        "--sizes", nargs="+", default=[], metavar="NAME=PARAMETERS", help="of judges, where their names do not say it"
    )
    parser.add_argument("--max_items", type=int, default=MAX_ITEMS, help=f"single items in the page ({MAX_ITEMS})")


def run(args: argparse.Namespace) -> int:
    """Write the four files and print the page's path."""
    from flip_plugin.errors import CommandError
    from flip_plugin.evals.report.input.sizes import parse_sizes

    if args.max_items < 0:
        raise CommandError("--max_items must be 0 or more")
    path = write_report(args.run_dirs, args.output, sizes=parse_sizes(args.sizes), max_items=args.max_items)
    print(path)
    return 0


def write_report(
    run_dirs: Sequence[str | Path],
    output: str | Path,
    *,
    sizes: Mapping[str, float] | None = None,
    max_items: int = 120,
) -> Path:
    """Write the report of these runs into the folder `output`; the path of the page.

    `sizes` are parameters by judge name. Raises `CommandError` where there is no run, or no such folder.
    """
    from flip_plugin.evals.report.claims.claims import check_claims
    from flip_plugin.evals.report.input.runs import read_runs
    from flip_plugin.evals.report.input.sizes import sizes_of
    from flip_plugin.evals.report.output.files import csv_text, json_text, markdown_text
    from flip_plugin.evals.report.output.page import page_data, render
    from flip_plugin.evals.report.output.sections import sections
    from flip_plugin.files.atomic import write_text

    runs = read_runs(run_dirs)
    for note in runs.notes:
        print(f"flip eval report: {note}", file=sys.stderr)
    known = sizes_of(runs.evals, sizes or {})
    claims = check_claims(runs, known)
    made = sections(runs, known)
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "cells.csv", csv_text(runs))
    write_text(folder / "report.json", json_text(runs, claims, known, written))
    write_text(folder / "report.md", markdown_text(runs, claims, made, written))
    data = page_data(runs, claims, made, known, written=written, max_items=max_items)
    return write_text(folder / "report.html", render(data))
