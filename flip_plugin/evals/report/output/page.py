"""What the page of the evaluations shows, as plain data, and the page (`flip_plugin.pages`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from flip_plugin.evals.report.claims.claims import CheckedClaim
from flip_plugin.evals.report.input import paper
from flip_plugin.evals.report.input.runs import EvalRun, ReportRuns
from flip_plugin.evals.report.output.inspection import KINDS, inspect_runs
from flip_plugin.evals.report.output.tables import Section
from flip_plugin.evals.report.text import flat
from flip_plugin.pages import render_page
from flip_plugin.pages.text import all_visible, visible

#: In the order in which they run, behind those of `flip_plugin.pages`.
SCRIPTS = ("charts.js", "tables.js", "items.js", "main.js")
TITLE = "FLIP evaluations"


def page_data(
    runs: ReportRuns,
    claims: Sequence[CheckedClaim],
    made: Sequence[Section],
    sizes: Mapping[str, float],
    *,
    written: str,
    max_items: int,
) -> dict[str, Any]:
    """Everything that the page shows, as plain data."""
    items, total = inspect_runs(runs.evals, max_items)
    return {
        "title": TITLE,
        "written": written,
        "notes": [visible(note) for note in runs.notes],
        "claims": [all_visible(asdict(claim)) for claim in claims],
        "sections": [all_visible(asdict(section)) for section in made],
        "runs": [_about(run) for run in runs.evals]
        + [
            {
                "name": visible(run.name),
                "what": f"training run, reward {run.reward or 'not known'}",
                "command": visible(str(run.config.get("command") or "")),
                "facts": [["seed", visible(str(run.seed))]],
                "rules": [],
            }
            for run in runs.training
        ],
        "sizes": {visible(name): size for name, size in sizes.items()},
        "paper": {
            "sources": [asdict(source) for source in paper.sources().values()],
            "setup": paper.setup(),
            "figures": [
                {"what": one.what, "method": one.method, "value": one.label(), "note": one.note}
                for one in paper.all_figures()
            ],
        },
        "items": {"rows": items, "total": total, "kinds": list(KINDS)},
    }


def render(data: Mapping[str, Any]) -> str:
    """The page."""
    return render_page("flip_plugin.evals.report.output", SCRIPTS, title=str(data["title"]), data=data)


def _about(run: EvalRun) -> dict[str, Any]:
    kept = ("data", "judges", "methods", "seeds", "settings", "notes", "versions", "date")
    config = {
        name: [_judge(one) for one in run.config[name]] if name == "judges" else run.config[name]
        for name in kept
        if run.config.get(name)
    }
    return {
        "name": visible(run.name),
        "what": visible(run.evaluation),
        "command": visible(str(run.config.get("command") or "")),
        "facts": [[name, value] for name, value in flat(config) if value],
        "rules": [visible(rule) for rule in run.rules],
    }


def _judge(judge: Mapping[str, Any]) -> str:
    where = "loaded by vLLM" if judge.get("offline") else judge.get("api_base") or "provider's own address"
    return f"{judge.get('name')}: {judge.get('model')} ({where})"
