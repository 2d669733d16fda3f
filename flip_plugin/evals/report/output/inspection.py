"""Single items of the evaluated runs, for a reader to look at: a bounded number, chosen evenly over what happened.

Of each item: prompt, responses, the scores by every judge and method (mean over runs, and how many runs have
one), who picked what, and the instruction that each judge inferred, with the words that it shares with the target.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from flip_plugin.evals.records.items import METHODS
from flip_plugin.evals.records.journal import FOLDER as JUDGEMENTS
from flip_plugin.evals.records.runs import ITEMS
from flip_plugin.evals.report.input.runs import EvalRun
from flip_plugin.evals.report.text import MAX_CHARS, cut
from flip_plugin.files.jsonl import read_jsonl
from flip_plugin.pages.text import mark_shared, spread, visible

MAX_ITEMS = 120
MAX_RESPONSES = 16
#: What happened to an item; in the order of the page's filter.
KINDS = (
    "only FLIP right",
    "only judges right",
    "no verdict",
    "all right",
    "all wrong",
    "mixed",
    "no right answer known",
)

Row = dict[str, Any]


def inspect_runs(runs: Sequence[EvalRun], limit: int = MAX_ITEMS) -> tuple[list[Row], int]:
    """At most `limit` items over all runs that kept theirs, and how many there were."""
    able = [run for run in runs if (run.path / ITEMS).exists() and (run.path / JUDGEMENTS).is_dir()]
    chosen, total = [], 0
    for place, run in enumerate(able):
        items, judged = _read_items(run.path), _read_judgements(run.path)
        items = [item for item in items if item["id"] in judged]
        total += len(items)
        room = (limit - len(chosen)) // (len(able) - place)
        order = [str(judge.get("name")) for judge in run.config.get("judges") or []]
        for judgements in judged.values():
            judgements.sort(key=lambda row: (_place(order, row["judge"]), _place(METHODS, row["method"]), row["seed"]))
        chosen += _chosen(run.name, items, judged, room)
    return chosen, total


def _place(order: Sequence[str], name: str) -> tuple[int, str]:
    return (order.index(name) if name in order else len(order), name)


def _read_items(folder: Path) -> list[Row]:
    return list(_rows(folder / ITEMS))


def _read_judgements(folder: Path) -> dict[str, list[Row]]:
    """Judgements by item; of two with one key the last, as a continued run left them."""
    last: dict[tuple[Any, ...], Row] = {}
    for file in sorted((folder / JUDGEMENTS).glob("*.jsonl")):
        for row in _rows(file):
            last[row.get("judge"), row.get("method"), row.get("id"), row.get("seed")] = row
    by_item: dict[str, list[Row]] = defaultdict(list)
    for row in last.values():
        by_item[row["id"]].append(row)
    return by_item


def _rows(file: Path) -> Iterable[Row]:
    """The items or judgements in a file; damaged lines are left out."""
    return (row for row in read_jsonl(file, bad_lines=[]) if isinstance(row.get("id"), str))


def _chosen(run: str, items: Sequence[Row], judged: Mapping[str, list[Row]], room: int) -> list[Row]:
    """`room` items at most: by turns one of each kind, those of a kind at even distances."""
    by_kind: dict[str, list[Row]] = defaultdict(list)
    for item in items:
        by_kind[kind_of(item, judged[item["id"]])].append(item)
    queues = [spread(by_kind[kind], room) for kind in KINDS if kind in by_kind]
    picked: list[tuple[str, Row]] = []
    turn = 0
    while len(picked) < room and any(len(queue) > turn for queue in queues):
        for queue in queues:
            if len(queue) > turn and len(picked) < room:
                item = queue[turn]
                picked.append((kind_of(item, judged[item["id"]]), item))
        turn += 1
    return [_shown(run, kind, item, judged[item["id"]]) for kind, item in picked]


def kind_of(item: Row, judgements: Sequence[Row]) -> str:
    """Which of `KINDS` an item is, by the picks of all judges and runs: a method is right when most of them are."""
    right = item.get("right")
    if not right or all(right) or not any(right):
        return "no right answer known"
    credits: dict[bool, list[float]] = {True: [], False: []}
    for row in judgements:
        best = _best(row)
        if not best:
            continue
        credits[row["method"] == "flip"].append(fmean(bool(right[index]) for index in best if index < len(right)))
    if any(not _best(row) for row in judgements):
        return "no verdict"
    verdicts = {name: fmean(values) > 0.5 for name, values in credits.items() if values}
    if len(verdicts) < 2:
        return "all right" if all(verdicts.values()) else "all wrong"
    if verdicts[True] != verdicts[False]:
        return "only FLIP right" if verdicts[True] else "only judges right"
    together = [*credits[True], *credits[False]]
    if all(value == 1 for value in together):
        return "all right"
    return "all wrong" if not any(together) else "mixed"


def _best(row: Row) -> list[int]:
    scores = [score for score in row.get("scores") or [] if score is not None]
    if not scores:
        return list((row.get("extra") or {}).get("best") or [])
    return [index for index, score in enumerate(row["scores"]) if score == max(scores)]


def _shown(run: str, kind: str, item: Row, judgements: Sequence[Row]) -> Row:
    count = min(len(item["responses"]), MAX_RESPONSES)
    places = dict.fromkeys((row["judge"], row["method"]) for row in judgements)
    right = item.get("right")
    return {
        "run": visible(run),
        "id": visible(item["id"]),
        "subset": visible(item.get("subset") or ""),
        "kind": kind,
        "prompt": _turns(item["prompt"]),
        "responses": [cut(text) for text in item["responses"][:count]],
        "more": len(item["responses"]) - count,
        "right": [bool(one) for one in right[:count]] if right else None,
        "scores": [_scores(judge, method, judgements, count) for judge, method in places],
        "inferred": [
            _inferred(row, count)
            for judge in dict.fromkeys(row["judge"] for row in judgements)
            if (row := _first(judgements, judge))
        ],
    }


def _turns(prompt: Any) -> list[list[str]]:
    if isinstance(prompt, str):
        return [["user", cut(prompt)]]
    return [[visible(turn.get("role")), cut(turn.get("content"))] for turn in prompt if isinstance(turn, dict)]


def _scores(judge: str, method: str, judgements: Sequence[Row], count: int) -> Row:
    """Each response's mean score over the runs, and the statuses that kept a score away."""
    own = [row for row in judgements if (row["judge"], row["method"]) == (judge, method)]
    means, bad = [], []
    for index in range(count):
        known = [row["scores"][index] for row in own if index < len(row["scores"]) and row["scores"][index] is not None]
        means.append(round(fmean(known), 4) if known else None)
    for row in own:
        bad += [visible(status) for status in row.get("statuses") or [] if status != "ok"]
    picks = [index for row in own for index in _best(row)]
    return {
        "judge": visible(judge),
        "method": visible(method),
        "means": means,
        "picks": [picks.count(index) for index in range(count)],
        "runs": len(own),
        "bad": {status: bad.count(status) for status in dict.fromkeys(bad)},
    }


def _first(judgements: Sequence[Row], judge: str) -> Row | None:
    """FLIP's judgement of the lowest seed, which has the inferred instructions."""
    own = [row for row in judgements if row["judge"] == judge and row["method"] == "flip" and row.get("details")]
    return min(own, key=lambda row: row["seed"], default=None)


def _inferred(row: Row, count: int) -> Row:
    responses = []
    for index, details in enumerate(row["details"][:count]):
        inferred, target = details.get("inferred_instruction"), details.get("target")
        score = row["scores"][index] if index < len(row["scores"]) else None
        if inferred is None:
            status = row["statuses"][index] if index < len(row["statuses"]) else "missing"
            responses.append({"status": visible(status)})
        else:
            marked = mark_shared(str(target or ""), str(inferred), MAX_CHARS)
            responses.append(
                {
                    "inferred": marked["inferred"],
                    "target": marked["real"],
                    "score": score,
                    "echo": details.get("echo"),
                }
            )
    return {"judge": visible(row["judge"]), "seed": row["seed"], "responses": responses}
