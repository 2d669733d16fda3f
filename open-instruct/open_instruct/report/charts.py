"""Which curves a page draws: one chart a question, train and evaluation together; with several runs, runs together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from flip_plugin.pages.text import visible
from open_instruct.report.numbers import Row, number, short
from open_instruct.report.summary import repeats_verifier, title


class Chart(NamedTuple):
    """What one chart shows: metrics whose whole name matches, and the eval metrics next to them.

    `unit` is how values read: score, share (of 1, as a percentage), seconds, count or plain.
    `train` and `evals` are patterns; a group in one is the series' name.
    """

    section: str
    title: str
    unit: str
    train: str
    evals: str = ""
    note: str = ""
    kind: str = "line"


REWARD, JUDGE, POLICY, TIME, OTHERS = "Reward", "Judge", "Policy", "Time", "More"
CHARTS = (
    Chart(REWARD, "Reward", "score", "objective/scores", "eval/scores"),
    Chart(REWARD, "Reward by verifier", "score", "objective/(.+)_reward", "eval/(.+)_reward"),
    Chart(REWARD, "Constraints satisfied", "score", "objective/constraints_satisfied", "eval/constraints_satisfied"),
    Chart(REWARD, "Pass at k", "share", "", "eval/pass_at_(.+)"),
    Chart(REWARD, "Standard deviation of the reward", "score", "objective/scores_std", "eval/scores_std"),
    Chart(REWARD, "Groups without a signal", "count", "objective/groups_(.+)"),
    Chart(
        JUDGE,
        "Invalid share",
        "share",
        "objective/(?:(.+)_)?invalid_frac",
        "eval/(?:(.+)_)?invalid_frac",
        "Samples whose judgement is missing.",
    ),
    Chart(JUDGE, "Echo", "share", "objective/echo", "eval/echo", "Share of the instruction repeated word for word."),
    Chart(JUDGE, "Judge latency", "seconds", "judge/latency_(.+)", note="Of the step's judgements."),
    Chart(
        JUDGE,
        "Judging hidden",
        "share",
        "time/judge_hidden_frac",
        note="Share of the judging time that nobody waited for.",
    ),
    Chart(JUDGE, "Judge calls", "count", "judge/(calls|cached|errors|retries)"),
    Chart(JUDGE, "Judge tokens", "count", "judge/(prompt|completion)_tokens"),
    Chart(
        POLICY, "Response length", "count", "val/sequence_lengths(_max|_min)?", "eval/sequence_lengths", "In tokens."
    ),
    Chart(POLICY, "Finished by itself", "share", "val/stop_rate", "eval/stop_rate"),
    Chart(POLICY, "Entropy", "plain", "(?:objective|policy|val)/entropy(?:_avg)?"),
    Chart(POLICY, "KL from the reference", "plain", "objective/kl(?:_avg)?"),
    Chart(POLICY, "Clip share", "share", "policy/clipfrac(?:_avg)?"),
    Chart(
        POLICY,
        "Rho: trainer over sampler",
        "plain",
        "val/(?:rho|tis)_weight",
        note="Mean weight of the ratio correction.",
    ),
    Chart(POLICY, "Rho: clamped and dropped", "share", "val/rho_(clip|drop|drop_low|drop_high)_?frac"),
    Chart(
        POLICY,
        "Gap of log-probabilities",
        "plain",
        "val/sampler_logprob_gap|debug/vllm_vs_local_logprob_diff_mean",
        note="Between trainer and sampler.",
    ),
    Chart(POLICY, "Probability ratio", "plain", "val/ratio"),
    Chart(POLICY, "Gradient norm", "plain", "(?:.+/)?grad_norm(?:_avg)?"),
    Chart(POLICY, "Loss", "plain", "loss/(policy|kl|total)(?:_avg)?"),
    Chart(
        POLICY,
        "Steps off policy",
        "plain",
        "num_steps_off_policy",
        note="Updates that the weights had missed when a response was finished.",
    ),
    Chart(POLICY, "KL estimators", "plain", "objective/(kl\\d)_avg"),
    Chart(POLICY, "Learning rate", "plain", "lr"),
    Chart(
        TIME,
        "Step time",
        "seconds",
        "time/(trainer_waiting_for_data|waiting_for_batch|training|weight_sync|saving|total)",
        note="What the learner did with a step; the line is the whole step.",
        kind="stack",
    ),
    Chart(
        TIME,
        "Generation, judging, evaluation",
        "seconds",
        "time/(generation|judging|eval)",
        note="Seconds in which at least one was under way. They overlap, and go on while the learner trains.",
    ),
    Chart(TIME, "Tokens per second", "count", "val/actor_tokens_per_second", note="Of the policy engines."),
    Chart(TIME, "Servers up", "count", "(engine|judge)/(?:replicas_)?up"),
    Chart(TIME, "Restarts", "count", "(engine|judge)/restarts", note="Since the start of the run."),
)
# They only grow with the step, and say nothing as a curve.
_NO_CURVE = {"training_step", "episode"}


def build_charts(runs: Sequence[list[Row]]) -> list[Row]:
    """The charts that have data; `runs` holds each run's rows, a series has one value (or None) a row of its run.

    A metric that no chart asks for gets a chart of its own, so that nothing is lost. With several runs a chart
    holds one metric alone, and its evaluation, for every run.
    """
    present = [_keys(rows) for rows in runs]
    keys = list(dict.fromkeys(key for run_keys in present for key in run_keys))
    drawn = []
    for chart in (*CHARTS, *_other_charts(keys)):
        series: list[Row] = [
            {**one, "run": number_of_run}
            for number_of_run, rows in enumerate(runs)
            for one in [*_series(chart.train, keys, rows, False), *_series(chart.evals, keys, rows, True)]
        ]
        series = [one for one in series if any(value is not None for value in one["values"])]
        if series:
            drawn += _one_metric_each(chart, series) if len(runs) > 1 else [_drawn(chart, chart.title, series)]
    return drawn


def _keys(rows: list[Row]) -> list[str]:
    keys = list(dict.fromkeys(key for row in rows for key in row if number(row[key]) is not None))
    return [key for key in keys if key not in _NO_CURVE and not repeats_verifier(key, keys, rows)]


def _drawn(chart: Chart, name: str, series: list[Row]) -> Row:
    if chart.kind == "stack":
        series = _with_rest(series)
    shown = {field: getattr(chart, field) for field in ("section", "unit", "note", "kind")}
    return {**shown, "title": name, "series": [{**one, "name": _series_name(one)} for one in series]}


def _series_name(series: Row) -> str:
    name = series["name"].strip().replace("_", " ")
    return ", ".join(part for part in (visible(name), "eval" if series["eval"] else "") if part) or "train"


def _one_metric_each(chart: Chart, series: list[Row]) -> Iterator[Row]:
    names = list(dict.fromkeys(one["name"] for one in series))
    for name in names:
        of_name = [{**one, "name": ""} for one in series if one["name"] == name]
        words = visible(name.strip("_").replace("_", " "))
        if chart.section == TIME:  # the title and the note are about the stages together
            yield _drawn(chart._replace(kind="line", note=""), words.capitalize(), of_name)
        else:
            yield _drawn(chart, f"{chart.title}: {words}" if words else chart.title, of_name)


def _with_rest(series: list[Row]) -> list[Row]:
    """A stack's series with what its parts leave of the total."""
    total = next((one for one in series if one["name"] == "total"), None)
    parts = [one["values"] for one in series if one is not total]
    if total is None or not parts:
        return series
    columns = zip(total["values"], *parts, strict=True)
    rest = [None if whole is None else short(max(0.0, whole - sum(p or 0.0 for p in some))) for whole, *some in columns]
    return [*series, {"name": "other", "eval": False, "run": total["run"], "values": rest}]


def _series(pattern: str, keys: Sequence[str], rows: list[Row], is_eval: bool) -> Iterator[Row]:
    for key in keys:
        if not pattern or not (match := re.fullmatch(pattern, key)):
            continue
        name = match[1] or "" if match.re.groups else ""
        yield {"name": name, "eval": is_eval, "values": [short(row.get(key)) for row in rows]}


def _other_charts(keys: Sequence[str]) -> Iterator[Chart]:
    """A chart for each metric that CHARTS does not name, with its evaluation if it has one."""
    left = [key for key in keys if not any(_wants(chart, key) for chart in CHARTS)]
    taken: set[str] = set()
    for key in sorted(left, key=lambda key: key.startswith("eval/")):  # an eval metric goes with its partner
        if key in taken:
            continue
        if key.startswith("eval/"):
            yield Chart(OTHERS, f"Eval: {visible(title(key))}", "plain", "", re.escape(key))
            continue
        partner = "eval/" + key.partition("/")[2]
        evals = re.escape(partner) if partner in left and partner not in taken else ""
        taken.add(partner)
        yield Chart(OTHERS, visible(key), "plain", re.escape(key), evals)


def _wants(chart: Chart, key: str) -> bool:
    return any(pattern and re.fullmatch(pattern, key) for pattern in (chart.train, chart.evals))
