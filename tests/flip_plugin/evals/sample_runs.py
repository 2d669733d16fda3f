"""Run folders of every evaluation, as `flip eval` leaves them, with drawn numbers: for tests of the report.

    python tests/flip_plugin/evals/sample_runs.py FOLDER      writes them for a look by hand

Three judges whose FLIP gains little from their size and whose other methods gain much; hostile text among the items.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flip_plugin.evals.records.items import EvalItem, Judgement, Result
from flip_plugin.evals.stats.accuracy import accuracy_results
from flip_plugin.text.similarity import f1_score

JUDGES = {"small": 0.4e6, "medium": 1.05e6, "large": 3.1e6}
METHODS = ("flip", "pointwise", "listwise", "pairwise")
SEEDS = (1, 2, 3)
SUBSETS = ("Focus", "Factuality", "Precise IF", "Math")
SKILL = {
    "flip": (0.55, 0.6, 0.62),
    "pointwise": (0.2, 0.33, 0.5),
    "listwise": (0.24, 0.3, 0.44),
    "pairwise": (0.22, 0.35, 0.55),
}
HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)> {{DATA}} <!-- \u2028 \u2029 \ud800 \u202e "
    "javascript:alert(3) ${1} `code` | a cell | =1+1"
)
TOPICS = ("the sea", "an old lighthouse", "honey bees", "the night train", "a broken clock")
FORMS = ("poem", "letter", "report", "song")


def write_runs(folder: Path, *, seed: int = 1, items: int = 48) -> dict[str, Path]:
    """One folder an evaluation and two training runs a reward, by name."""
    rng = random.Random(seed)
    made = {
        "rewardbench2": _rewardbench2(folder / "rewardbench2", rng, items),
        "best_of_n": _run(folder / "best_of_n", "best_of_n", _best_of_n(rng)),
        "robustness": _run(folder / "robustness", "robustness", _robustness(rng)),
        "length": _run(folder / "length", "length", _length(rng)),
        "similarity": _run(folder / "similarity", "similarity", _similarity(rng)),
        "agreement": _run(folder / "agreement", "agreement", _agreement(rng)),
        "grpo_table": _run(folder / "grpo_table", "grpo_table", _grpo_table(rng), judges=False),
    }
    for reward, verifier in (("flip", "general-flip"), ("llmjudge", "general-quality")):
        for number in (1, 2):
            made[f"{reward}_{number}"] = _training(folder / f"tiny_{reward}_seed{number}", verifier, number, rng)
    return made


def near(rng: random.Random, value: float, half: float = 0.04, **place: Any) -> Result:
    """A result whose three runs lie about `value`."""
    runs = [value + rng.uniform(-half, half) / 3 for _ in SEEDS]
    mean = sum(runs) / len(runs)
    fields: dict[str, Any] = {"n": 200, "invalid": 0.012, **place}
    return Result(value=mean, low=mean - half, high=mean + half, runs=runs, **fields)


def _rewardbench2(folder: Path, rng: random.Random, count: int) -> Path:
    made = [_item(number, rng) for number in range(count)]
    judged = [
        _judgement(item, judge, method, seed, SKILL[method][place], rng)
        for place, judge in enumerate(JUDGES)
        for method in METHODS
        for seed in SEEDS
        for item in made
    ]
    results = accuracy_results(
        "rewardbench2", made, judged, judges=list(JUDGES), methods=METHODS, seeds=SEEDS, group_order=SUBSETS
    )
    path = _run(folder, "rewardbench2", results, items=made)
    (path / "judgements").mkdir(exist_ok=True)
    for judge in JUDGES:
        for method in METHODS:
            for seed in SEEDS:
                own = [one for one in judged if (one.judge, one.method, one.seed) == (judge, method, seed)]
                _lines(path / "judgements" / f"{judge}.{method}.{seed}.jsonl", [one.to_dict() for one in own])
    return path


def _item(number: int, rng: random.Random) -> EvalItem:
    topic, form = TOPICS[number % len(TOPICS)], FORMS[number % len(FORMS)]
    prompt: Any = f"Write a {form} about {topic}, in {number + 2} lines."
    responses = [f"A {rng.choice(FORMS)} on {rng.choice(TOPICS)}. Line {place}." for place in range(4)]
    if number == 3:
        prompt, responses[1] = [{"role": "system", "content": HOSTILE}, {"role": "user", "content": prompt}], HOSTILE
    if number == 5:
        responses[2] = "word " * 2000
    right = [place == number % 4 for place in range(4)]
    return EvalItem(f"item-{number}", prompt, responses, right, SUBSETS[number % len(SUBSETS)])


def _judgement(item: EvalItem, judge: str, method: str, seed: int, skill: float, rng: random.Random) -> Judgement:
    assert item.right is not None
    good = item.right.index(True)
    best = good if rng.random() < skill else rng.choice([i for i in range(4) if i != good])
    scores: list[float | None] = [
        round(rng.uniform(0.6, 0.9) if i == best else rng.uniform(0, 0.6), 3) for i in range(4)
    ]
    statuses = ["ok"] * (1 if method == "listwise" else 12 if method == "pairwise" else 4)
    details: Sequence[dict[str, Any]] = ()
    if rng.random() < 0.02:
        scores, statuses = [None] * 4, ["unparsed"] * len(statuses)
    if method == "flip":
        target = item.prompt if isinstance(item.prompt, str) else item.prompt[-1]["content"]
        details = [_inferred(target, rng) if score is not None else {} for score in scores]
        details = [{**one, "target": target, "echo": 0.0} if one else {} for one in details]
    return Judgement(item.id, judge, method, seed, scores, statuses, details)


def _inferred(target: str, rng: random.Random) -> dict[str, Any]:
    words = [word for word in target.split() if rng.random() < 0.7]
    inferred = " ".join(words) or "Say something"
    return {"inferred_instruction": inferred, "similarity": f1_score(inferred, target)["f1"]}


def _best_of_n(rng: random.Random) -> list[Result]:
    results = []
    for metric, floor, top in (("prompt_level_strict_acc", 0.55, 0.9), ("rm:org/reward-model", -1.2, 3.4)):
        for place, n in enumerate((1, 2, 4, 8, 16)):
            group = f"N={n}"
            common: dict[str, Any] = {"evaluation": "best_of_n", "group": group, "metric": metric}
            half = 0.03 if top < 1 else 0.2
            results.append(near(rng, floor + (top - floor) * place / 4, half, judge="-", method="oracle", **common))
            results.append(near(rng, floor, half, judge="-", method="random", **common))
            for number, judge in enumerate(JUDGES):
                for method in METHODS:
                    value = floor + (top - floor) * place / 4 * SKILL[method][number] * 0.8
                    results.append(near(rng, value, half, judge=judge, method=method, **common))
    return results


ATTACKS = (
    "verbatim_echo",
    "paraphrased_echo",
    "appended_praise",
    "score_demand",
    "forged_header",
    "one_token",
    "padding",
)


def _robustness(rng: random.Random) -> list[Result]:
    results = []
    for judge in JUDGES:
        for row in ("flip", "flip+strip", "flip+penalise", *METHODS[1:]):
            for number, attack in enumerate((*ATTACKS, "all")):
                common: dict[str, Any] = {"evaluation": "robustness", "judge": judge, "method": row, "group": attack}
                change = (
                    0.5 if row == "flip" and "echo" in attack else 0.02 if row.startswith("flip") else 0.08 * number
                )
                results += [
                    near(rng, 0.25, metric="wins_before", **common),
                    near(rng, 0.25 + change, metric="wins", **common),
                    near(rng, change, metric="wins_change", **common),
                    near(rng, change / 2, metric="shift", **common),
                ]
    return results


def _length(rng: random.Random) -> list[Result]:
    results = []
    for number, judge in enumerate(JUDGES):
        for method in METHODS:
            for place, bucket in enumerate(("0-63", "64-127", "128-255", "256+", "all")):
                rise = 0.09 * (place - 1) if method == "flip" and bucket != "all" else 0
                value = SKILL[method][number] + rise
                common: dict[str, Any] = {
                    "evaluation": "length",
                    "judge": judge,
                    "method": method,
                    "metric": "accuracy",
                }
                results.append(near(rng, value, group=bucket, n=50, **{k: v for k, v in common.items()}))
    return results


def _similarity(rng: random.Random) -> list[Result]:
    return [
        near(
            rng,
            SKILL["flip"][number] - loss,
            evaluation="similarity",
            judge=judge,
            method=f"flip+{name}",
            group="all",
            metric="accuracy",
        )
        for number, judge in enumerate(JUDGES)
        for name, loss in (("f1", 0), ("unicode_f1", 0.01), ("rouge_l", 0.04))
    ]


def _agreement(rng: random.Random) -> list[Result]:
    names = [(judge, "runs") for judge in JUDGES]
    names += [(f"{a}~{b}", "judges") for a, b in (("small", "medium"), ("small", "large"), ("medium", "large"))]
    return [
        near(rng, rng.uniform(0.3, 0.9), evaluation="agreement", judge=judge, method=method, group=group, metric=metric)
        for judge, group in names
        for method in METHODS
        for metric in ("spearman", "spearman_within", "kendall", "kendall_within", "same_pick")
    ]


def _grpo_table(rng: random.Random) -> list[Result]:
    return [
        near(
            rng,
            value,
            0.02,
            evaluation="grpo_table",
            judge=judge,
            method=reward,
            group=task,
            metric=metric,
            note="primary",
            invalid=None,
        )
        for judge, reward, value in (("base", "", 0.5), ("flip", "flip", 0.62), ("llmjudge", "pointwise", 0.55))
        for task, metric in (("ifeval", "prompt_level_loose_acc"), ("bbh", "exact_match,flexible-extract"))
    ]


def _training(folder: Path, verifier: str, seed: int, rng: random.Random) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    end = 0.95 if verifier == "general-flip" else 0.78
    rows = []
    for step in range(0, 61, 5):
        share = 0.54 + (end - 0.54) * step / 60 + rng.uniform(-0.01, 0.01)
        row = {"training_step": step, "eval/constraints_satisfied": share, f"eval/{verifier}_reward": share - 0.1}
        rows.append(row | ({f"objective/{verifier}_reward": share} if step else {}))
    _lines(folder / "metrics.jsonl", rows)
    (folder / "config.json").write_text(json.dumps({"flags": {"seed": seed, "run_name": folder.name}}))
    return folder


def _run(
    folder: Path, evaluation: str, results: Sequence[Result], *, items: Sequence[EvalItem] = (), judges: bool = True
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "evaluation": evaluation,
        "command": f"flip eval {evaluation} --data rows.jsonl --seeds 1 2 3 --output runs/{evaluation}",
        "data": {"source": "rows.jsonl", "split": None, "items": len(items), "sha256": "0" * 64},
        "judges": [
            {
                "name": name,
                "model": "hosted_vllm/judge",
                "api_base": "http://me:pw@127.0.0.1:8000/v1",
                "offline": False,
                "parameters": size,
            }
            for name, size in JUDGES.items()
        ]
        if judges
        else [],
        "methods": list(METHODS),
        "seeds": list(SEEDS),
        "settings": {"temperature": 0.7, "max_tokens": 512, "prompts": {"FLIP_USER": "3f2a" * 16}},
        "rules": ["Ties share the credit.", "An item without any score counts as a random pick."],
        "notes": {},
        "versions": {"python": "3.11.9", "vllm": "0.32.0"},
        "date": "2026-11-21T12:00:00Z",
    }
    content = {"cells": [result.to_dict() for result in results], "rules": config["rules"], "config": config}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "results.json").write_text(json.dumps(content))
    _lines(folder / "items.jsonl", [item.to_dict() for item in items])
    return folder


def _lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    print(*write_runs(Path(sys.argv[1])).values(), sep="\n")
