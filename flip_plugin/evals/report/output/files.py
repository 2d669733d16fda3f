"""The report's other files: report.json (everything), cells.csv (a row a number), report.md (for a note)."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from flip_plugin.evals.report.claims.claims import CheckedClaim
from flip_plugin.evals.report.input import paper
from flip_plugin.evals.report.input.runs import EvalRun, ReportRuns
from flip_plugin.evals.report.output.tables import Entry, Section, Table
from flip_plugin.evals.report.text import flat
from flip_plugin.pages.text import visible

#: A field of cells.csv that begins like this would be a formula in a spreadsheet.
_FORMULA = re.compile(r"^[=+\-@\t\r]")
CSV_COLUMNS = (
    "run",
    "evaluation",
    "judge",
    "method",
    "group",
    "metric",
    "value",
    "low",
    "high",
    "n",
    "invalid",
    "runs",
    "note",
    "paper_value",
    "paper_sources",
    "paper_kind",
)


def csv_text(runs: ReportRuns) -> str:
    """Every result, with the paper's number for the same place where one was found; then training runs' curves."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for run in runs.evals:
        for result in (*run.results, *run.differences):
            row = {
                **result.to_dict(),
                "run": run.name,
                "runs": " ".join("" if v is None else f"{v:g}" for v in result.runs),
            }
            writer.writerow({name: _safe(row.get(name)) for name in CSV_COLUMNS} | _paper_columns(run, result))
    for one in runs.training:
        for metric, curve in one.curves.items():
            for step, value in curve:
                row = {
                    "run": one.name,
                    "evaluation": "training",
                    "judge": one.name,
                    "method": one.reward,
                    "group": f"step {step:g}",
                    "metric": metric,
                    "value": value,
                }
                writer.writerow({name: _safe(row.get(name)) for name in CSV_COLUMNS})
    return out.getvalue()


def _paper_columns(run: EvalRun, result: Any) -> dict[str, Any]:
    metric = "primary" if run.evaluation == "grpo_table" and result.note.startswith("primary") else result.metric
    known = paper.figures(run.evaluation, group=result.group, metric=metric, method=result.method)
    figure = known[0] if known and known[0].value is not None else None
    if figure is None:
        return {"paper_value": "", "paper_sources": "", "paper_kind": ""}
    letters = " ".join(source.key for source in figure.sources)
    return {"paper_value": figure.value, "paper_sources": letters, "paper_kind": figure.kind}


def _safe(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return f"'{value}" if _FORMULA.match(value) else value


def json_text(runs: ReportRuns, claims: Sequence[CheckedClaim], sizes: Mapping[str, float], written: str) -> str:
    """Everything but the single items, for programs."""
    data = {
        "written": written,
        "claims": [asdict(claim) for claim in claims],
        "runs": [
            {
                "name": run.name,
                "evaluation": run.evaluation,
                "cells": [result.to_dict() for result in (*run.results, *run.differences)],
                "rules": list(run.rules),
                "config": run.config,
            }
            for run in runs.evals
        ],
        "training": [
            {"name": run.name, "reward": run.reward, "seed": run.seed, "curves": run.curves} for run in runs.training
        ],
        "sizes": dict(sizes),
        "paper": {
            "figures": [{**asdict(figure), "kind": figure.kind} for figure in paper.all_figures()],
            "setup": paper.setup(),
        },
        "notes": runs.notes,
    }
    return json.dumps(data, indent=1) + "\n"


def markdown_text(runs: ReportRuns, claims: Sequence[CheckedClaim], made: Sequence[Section], written: str) -> str:
    """The tables, the claims and how to make them again, as Markdown."""
    lines = ["# FLIP evaluations", "", f"Written {written}.", ""]
    lines += [f"> {_plain(note)}" for note in runs.notes]
    lines += ["", *_claims(claims)]
    for section in made:
        lines += ["", f"## {_plain(section.title)}", "", _plain(section.intro), ""]
        for table in section.tables:
            lines += [f"### {_plain(table.title)}", ""] if table.title else []
            lines += [*table_lines(table), ""]
            lines += [_plain(table.note), ""] if table.note else []
    lines += ["", "## The paper's numbers", "", *_paper_lines(), "", "## How it was made", ""]
    for run in runs.evals:
        lines += [*_run_lines(run), ""]
    for one in runs.training:
        lines += [
            f"### {_plain(one.name)}",
            "",
            f"- training run, reward {_plain(one.reward or '?')}, seed {one.seed}",
            "",
        ]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def table_lines(table: Table) -> list[str]:
    """A table as Markdown; what stands small is in the same place, behind the number."""
    lines = [
        "| " + " | ".join(_plain(title) or " " for title in table.columns) + " |",
        "|---" * len(table.columns) + "|",
    ]
    lines += ["| " + " | ".join(_table_cell(entry) for entry in row) + " |" for row in table.rows]
    return lines


def _table_cell(entry: Entry) -> str:
    text = " ".join(filter(None, [_plain(entry.text), f"({_plain(', '.join(entry.small))})" if entry.small else ""]))
    return f"*{text}*" if entry.kind in ("paper", "mean", "bound") and text else text


def _plain(text: str) -> str:
    """Text that cannot end a cell of a Markdown table, start HTML or run on: a name may come from anywhere."""
    one_line = " ".join(visible(text).split())
    return re.sub(r"([\\`*_{}\[\]<>|])", r"\\\1", one_line)


def _claims(claims: Iterable[CheckedClaim]) -> list[str]:
    lines = ["## The paper's claims", "", "| Claim | Verdict | Comparisons | Paper |", "|---|---|---|---|"]
    for claim in claims:
        lines.append(f"| {_plain(claim.text)} | **{claim.verdict}** | {_plain(claim.summary)} | {claim.sources} |")
    for claim in claims:
        lines += ["", f"### {_plain(claim.text)}: {claim.verdict}", "", _plain(claim.rule), ""]
        lines += [f"- {part.verdict}: {_plain(part.label)}: {_plain(part.figures)}" for part in claim.parts]
    lines += [
        "",
        "Not shown: the interval of the paired difference holds 0 (without one: the two 95% intervals overlap), "
        "or there is none.",
    ]
    return lines


def _paper_lines() -> list[str]:
    lines = [f"- **{key}** ({source.kind}): {_plain(source.what)}" for key, source in paper.sources().items()]
    lines += ["", "| What | Method | Value | Note |", "|---|---|---|---|"]
    for figure in paper.all_figures():
        lines.append(
            f"| {_plain(figure.what)} | {figure.method} | {figure.label() or 'not found'} | {_plain(figure.note)} |"
        )
    lines += ["", *(f"- {_plain(item)}: {_plain(value)} ({letters})" for item, value, letters in paper.setup())]
    return lines


def _run_lines(run: EvalRun) -> list[str]:
    command = visible(str(run.config.get("command") or "")).replace("\n", " ")
    fence = "`" * (max((len(ticks) for ticks in re.findall(r"`+", command)), default=0) + 3)
    lines = (
        [f"### {_plain(run.name)}", "", f"{fence}sh", command, fence, ""]
        if command
        else [f"### {_plain(run.name)}", ""]
    )
    lines += [f"- {_plain(rule)}" for rule in run.rules]
    kept = ("data", "judges", "methods", "seeds", "settings", "notes", "versions", "date")
    settings = [(name, value) for name in kept if name in run.config for name, value in flat({name: run.config[name]})]
    return [*lines, "", *(f"- {_plain(name)}: `{value.replace('`', chr(39))}`" for name, value in settings if value)]
