"""A run in a few numbers: evaluations, steps, samples, time."""

from __future__ import annotations

from statistics import median
from typing import Any

from flip_plugin.files.redaction import without_secrets
from flip_plugin.pages.text import visible
from open_instruct.report.numbers import Row, number
from open_instruct.report.reading import Run, find_setting


def summary(metrics: list[Row], totals: Row) -> Row:
    """Steps and time from the metrics, samples and statuses from the rollouts' `totals`."""
    seconds = [s for row in metrics if (s := number(row.get("time/total"))) is not None]
    hidden = [h for row in metrics if (h := number(row.get("time/judge_hidden_frac"))) is not None]
    return {
        "steps": sum(row["training_step"] > 0 for row in metrics),  # 0 is an evaluation before the first
        "last_step": metrics[-1]["training_step"] if metrics else None,
        "samples": totals["samples"],
        "missing": totals["missing"],
        "statuses": totals["statuses"],
        "seconds": sum(seconds) if seconds else None,
        "median_seconds": median(seconds) if seconds else None,
        "judge_hidden": median(hidden) if hidden else None,
    }


def eval_changes(metrics: list[Row]) -> list[Row]:
    """Each evaluation metric with its values by step: rewards, what verifiers report, then the rest."""
    curves: dict[str, Row] = {}
    for row in metrics:
        for key, value in row.items():
            if key.startswith("eval/") and number(value) is not None:
                entry = curves.setdefault(key, {"name": visible(title(key)), "steps": [], "values": []})
                entry["steps"].append(row["training_step"])
                entry["values"].append(value)

    def place(key: str) -> tuple[bool, bool, str]:
        return not key.endswith(("_reward", "/scores")), not key.endswith("_satisfied"), key

    keys = list(curves)
    return [curves[key] for key in sorted(keys, key=place) if not repeats_verifier(key, keys, metrics)]


def repeats_verifier(key: str, keys: list[str], metrics: list[Row]) -> bool:
    """Whether this is an overall value of a run whose only verifier has the very same one.

    A score of 1 may be worth more than 1 as a reward, so the curves may differ by a factor.
    """
    prefix, _, name = key.partition("/")
    ending = {"scores": "_reward", "invalid_frac": "_invalid_frac"}.get(name)
    verifiers = [other for other in keys if ending and other.startswith(prefix) and other.endswith(ending)]
    if len(verifiers) != 1:
        return False
    pairs = [(number(row.get(key)), number(row.get(verifiers[0]))) for row in metrics]
    if any((one is None) != (other is None) for one, other in pairs):
        return False
    factors = {
        float(f"{one / other:.4g}") if other else one for one, other in pairs if one is not None and other is not None
    }
    return len(factors - {0.0}) <= 1 and (name == "scores" or factors <= {0.0, 1.0})


def title(key: str) -> str:
    """`eval/constraints_satisfied` as a person would write it: `constraints satisfied`."""
    return (key.partition("/")[2] or key).replace("_", " ")


def about(run: Run) -> list[list[str]]:
    """Policy, judge and seed, with their labels."""
    wanted: dict[str, tuple[str, ...]] = {
        "policy": ("model_name_or_path",),
        "judge": ("llm_judge_model", "judge_model"),
        "seed": ("seed",),
    }
    values: dict[str, Any] = {label: find_setting(run.config, names) for label, names in wanted.items()}
    return [[label, visible(without_secrets(value))[:200]] for label, value in values.items() if value is not None]
