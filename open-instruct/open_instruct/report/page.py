"""What the page of a run shows, as plain data, and the page (`flip_plugin.pages`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from flip_plugin.files.jsonable import to_jsonable
from flip_plugin.pages import render_page
from open_instruct.report import rollouts, summary
from open_instruct.report.charts import build_charts
from open_instruct.report.numbers import MAX_CHARS, Row, number, short
from open_instruct.report.reading import Run
from open_instruct.report.settings import settings

#: In the order in which they run, behind those of `flip_plugin.pages`.
SCRIPTS = ("header.js", "lines.js", "curves.js", "settings.js", "rollouts.js", "detail.js", "main.js")


def collect(runs: Sequence[Run]) -> Row:
    """Everything that the page shows, as plain data."""
    prompts = rollouts.Prompts()
    samples: list[Row] = []
    shown: list[Row] = []
    for place, (run, name) in enumerate(zip(runs, _distinct_names(runs), strict=True)):
        own, totals = rollouts.read_rollouts(run, rollouts.MAX_SAMPLES // len(runs), prompts)
        samples += [{**sample, "run": place} for sample in own]
        curve_rows = run.curve_rows
        shown.append(
            {
                "name": name,
                "about": summary.about(run),
                "notes": run.notes,
                "summary": summary.summary(run.metrics, totals),
                "evals": summary.eval_changes(run.metrics),
                "steps": [row["training_step"] for row in curve_rows],
                "hours": _hours(run.metrics, curve_rows),
            }
        )
    return {
        "title": " · ".join(run["name"] for run in shown),
        "written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        "runs": shown,
        "charts": build_charts([run.curve_rows for run in runs]),
        "config": settings([run.config for run in runs]),
        "rollouts": {
            "samples": samples,
            "prompts": prompts.items,
            "total": sum(run["summary"]["samples"] for run in shown),
        },
        "limits": {"samples": rollouts.MAX_SAMPLES, "chars": MAX_CHARS},
    }


def _distinct_names(runs: Sequence[Run]) -> list[str]:
    """The runs' names; those that occur twice with their folder."""
    counts = Counter(run.name for run in runs)
    return [run.name if counts[run.name] == 1 else f"{run.name} ({run.folder.resolve().name})" for run in runs]


def _hours(metrics: list[Row], shown: list[Row]) -> list[float | None]:
    """Hours of training up to each shown row, by `time/total`; None where no row has one."""
    total, at, is_known = 0.0, {}, False
    for row in metrics:
        seconds = number(row.get("time/total"))
        is_known = is_known or seconds is not None
        total += seconds or 0.0
        at[row["training_step"]] = short(total / 3600)
    return [at[row["training_step"]] if is_known else None for row in shown]


def render(data: Row) -> str:
    """The page."""
    return render_page("open_instruct.report", SCRIPTS, title=f"{data['title']} · run report", data=to_jsonable(data))
