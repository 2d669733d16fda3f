"""A benchmark's own metric of a response: what best-of-N scores its picks with.

    ifeval, ifeval_loose            1 where all of the prompt's instructions are followed (lm-eval's IFEval), else 0
    ifeval_inst, ifeval_inst_loose  the share of them that is
    math                            1 for an answer equal to the row's (math-verify), else 0
    rm:HF_ID                        a reward model: a sequence classifier with one output, through transformers
    judge:MODEL[@URL]               a judge's pointwise rating, 0.1 to 1, greedy; judge:vllm:PATH loads it here
    MODULE:FUNCTION                 any function of (prompt, response) that returns a number, or None for no value

Loose is IFEval's: also the response without its first line, its last, both, and without asterisks. What is scored is
what follows ``</think>``; a response that ends inside its thinking is an empty one. Where there is no value (no
data to check with, a check that took too long) it is missing, with the reason, and never zero.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from flip_plugin.errors import CommandError
from flip_plugin.evals.judges.spec import JudgeSpec, open_model
from flip_plugin.evals.records.items import EvalItem, Value
from flip_plugin.files.jsonl import open_for_append, read_as
from flip_plugin.judge.event_loop import in_worker
from flip_plugin.prompts.target import render_context
from flip_plugin.text.reasoning import answer_of

# Of a long response, where its answer is looked for.
READ_CHARACTERS = 10_000
IFEVAL = ("ifeval", "ifeval_loose", "ifeval_inst", "ifeval_inst_loose")
HOW_TO_INSTALL = "uv pip install 'flip-plugin[checks]'"


class Metric(Protocol):
    """Scores all candidates of an item. `width`: how many items at a time."""

    width: int

    async def score(self, item: EvalItem) -> list[Value]:
        """One value a response, in their order."""
        ...


@contextmanager
def open_metric(text: str, *, max_tokens: int = 512, timeout: float = 120.0) -> Generator[Metric]:
    """The metric that `text` names. Raises `CommandError` for none. What it loads is gone at the end."""
    if text in IFEVAL:
        yield IFEvalMetric(per_instruction="inst" in text, loose=text.endswith("loose"))
    elif text == "math":
        yield MathMetric()
    elif text.startswith("rm:"):
        from flip_plugin.evals.data.reward_model import RewardModelMetric

        with RewardModelMetric(text.removeprefix("rm:")) as metric:
            yield metric
    elif text.startswith("judge:"):
        with open_model(JudgeSpec.parse(text.removeprefix("judge:")), timeout=timeout) as client:
            yield JudgeMetric(client(temperature=0.0, max_tokens=max_tokens))
    elif ":" in text:
        yield FunctionMetric(text)
    else:
        raise CommandError(
            f"unknown metric {text!r}: {', '.join(IFEVAL)}, math, rm:HF_ID, judge:MODEL[@URL] or MODULE:FUNCTION"
        )


class IFEvalMetric:
    """Needs ``meta["instruction_id_list"]`` and ``meta["kwargs"]``."""

    width = 8

    def __init__(self, *, per_instruction: bool, loose: bool) -> None:
        self.per_instruction, self.loose = per_instruction, loose

    async def score(self, item: EvalItem) -> list[Value]:
        """See the module's text. Raises `CommandError` where the item lacks its instructions."""
        ids, kwargs = item.meta.get("instruction_id_list"), item.meta.get("kwargs")
        if not ids or not kwargs or len(ids) != len(kwargs):
            raise CommandError(f"item {item.id!r} has no IFEval instructions in its meta: choose another --metric")
        requirements = [{"name": one, "checks": [[one, dict(given)]]} for one, given in zip(ids, kwargs, strict=True)]
        return await asyncio.gather(*(self._one(requirements, answer_of(response)) for response in item.responses))

    async def _one(self, requirements: list[dict[str, Any]], response: str) -> Value:
        versions = loose_versions(response) if self.loose else [response]
        followed = [False] * len(requirements)
        for version in versions:
            value, problem = await _checked("instructions", requirements=requirements, response=version)
            if problem is None and "met" not in value:
                problem = value["problem"]
            if problem is not None:
                return None, problem
            followed = [before or now for before, now in zip(followed, value["met"], strict=True)]
        return (sum(followed) / len(followed) if self.per_instruction else float(all(followed))), None


def loose_versions(response: str) -> list[str]:
    """`response` as it is, and with its first line, its last, or both left out; all four without asterisks, too."""
    lines = response.split("\n")
    cut = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    versions = [response, *cut]
    return list(dict.fromkeys([*versions, *(one.replace("*", "") for one in versions)]))


class MathMetric:
    """Needs ``meta["answer"]``, LaTeX or a number."""

    width = 8

    async def score(self, item: EvalItem) -> list[Value]:
        """See the module's text. Raises `CommandError` where the item lacks its answer."""
        answer = item.meta.get("answer")
        if answer is None or not str(answer).strip():
            raise CommandError(f"item {item.id!r} has no answer in its meta: choose another --metric")
        return await asyncio.gather(*(self._one(str(answer), answer_of(response)) for response in item.responses))

    async def _one(self, answer: str, response: str) -> Value:
        value, problem = await _checked("answer", label=answer, response=response[-READ_CHARACTERS:])
        if problem is None and value["score"] is None:
            problem = f"the answer {answer[:80]!r} is nothing that math-verify can compare with"
        return (None, problem) if problem else (value["score"], None)


async def _checked(operation: str, **arguments: Any) -> tuple[Any, str | None]:
    """A check in a worker process with limits: (what it returned, None) or (None, why not)."""
    from flip_plugin.answers.worker_pool import shared_pool

    reply = await asyncio.wrap_future(shared_pool().submit(operation, **arguments))
    if reply.status == "missing_library":
        raise CommandError(f"this metric needs the package {reply.error}: {HOW_TO_INSTALL}")
    return (reply.value, None) if reply.status == "ok" else (None, f"{reply.status}: {reply.error}")


class JudgeMetric:
    """A judge's rating of each response alone."""

    def __init__(self, client: Any) -> None:
        from flip_plugin.reward.pointwise import PointwiseJudge

        self.judge = PointwiseJudge("", client=client)
        self.width = max(1, client.max_concurrency // 8)

    async def score(self, item: EvalItem) -> list[Value]:
        """See the module's text."""
        results = await asyncio.gather(*(self.judge.score(item.prompt, response) for response in item.responses))
        lost = next((one for one in results if one.status == "judge_error"), None)
        if lost is not None:  # kept, it would be missing for ever
            raise CommandError(f"the metric's judge failed ({lost.error}): run the same command again")
        return [(result.score, None if result.score is not None else result.error) for result in results]


class FunctionMetric:
    """``package.module:function`` of (prompt, response), both as text; it runs in a thread of this process."""

    width = 4

    def __init__(self, text: str) -> None:
        module, _, name = text.partition(":")
        try:
            function = getattr(importlib.import_module(module), name, None)
        except ImportError as error:
            raise CommandError(f"metric {text!r}: {error}") from error
        if not callable(function):
            raise CommandError(f"metric {text!r}: {module} has no function {name!r}")
        self.text, self.function = text, function

    async def score(self, item: EvalItem) -> list[Value]:
        """See the module's text. What the function raises ends the run: it is the caller's own."""
        prompt = prompt_text(item)
        return await in_worker(lambda: [self._one(prompt, answer_of(response)) for response in item.responses])

    def _one(self, prompt: str, response: str) -> Value:
        value = self.function(prompt, response)
        if value is None:
            return None, f"{self.text} gave no value"
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise CommandError(f"metric {self.text!r} must give a finite number or None, not {value!r:.80}")
        return float(value), None


def prompt_text(item: EvalItem) -> str:
    """The prompt as one text: a single turn as it is, several with their roles."""
    if isinstance(item.prompt, str):
        return item.prompt
    turns = [dict(turn) for turn in item.prompt]
    return str(turns[0]["content"]) if len(turns) == 1 else render_context(turns)


def score_candidates(metric_name: str, items: Sequence[EvalItem], path: Path, **options: Any) -> dict[str, list[Value]]:
    """By item, the metric of each candidate. Kept in `path`, a line an item: a second call computes what is missing.

    `options` are those of `open_metric`. Raises `CommandError` where no candidate has a value.
    """
    before = _known(path, metric_name)
    known: dict[str, list[Value]] = {
        item.id: values for item in items if (values := before.get((item.id, digest(item))))
    }
    missing = [item for item in items if item.id not in known]
    if missing:
        with open_metric(metric_name, **options) as metric, open_for_append(path) as file:
            for item, values in asyncio.run(_score_all(metric, missing, metric_name, file)):
                known[item] = values
    values = {item.id: known[item.id] for item in items}
    if all(value is None for row in values.values() for value, _ in row):
        reason = next((why for row in values.values() for _, why in row if why), None)
        path.unlink(missing_ok=True)  # a run after the repair works them out anew
        raise CommandError(f"metric {metric_name}: no candidate has a value ({reason})")
    return values


async def _score_all(metric: Metric, items: Sequence[EvalItem], name: str, file: Any) -> list[tuple[str, list[Value]]]:
    from tqdm import tqdm

    waiting, scored = iter(items), []

    async def worker(bar: Any) -> None:
        for item in waiting:
            values = await metric.score(item)
            row: dict[str, Any] = {"metric": name, "id": item.id, "sha256": digest(item)}
            row |= {"values": [value for value, _ in values], "problems": [problem for _, problem in values]}
            file.write(json.dumps(row) + "\n")
            file.flush()
            scored.append((item.id, values))
            bar.update()

    with tqdm(total=len(items), unit="prompt", desc=name[:30]) as bar:
        workers = [asyncio.create_task(worker(bar)) for _ in range(metric.width)]
        try:
            await asyncio.gather(*workers)
        finally:
            for one in workers:
                one.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    return scored


def digest(item: EvalItem) -> str:
    """Of all that a metric sees, so that no value is taken for that of another response."""
    text = json.dumps([item.prompt, list(item.responses), dict(item.meta)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _known(path: Path, metric: str) -> dict[tuple[str, str], list[Value]]:
    """By item and its digest, what was scored before with this metric. Half a last line does not count."""
    if not path.exists():
        return {}

    def damaged(number: int, problem: str) -> CommandError:
        return CommandError(f"{path}: line {number} is no line of a metric ({problem}): remove the file")

    rows = list(read_as(path, _checked_row, damaged))
    return {(name, sha256): values for of, name, sha256, values in rows if of == metric}


def _checked_row(row: Mapping[str, Any]) -> tuple[str, str, str, list[Value]]:
    """Of a line of values: metric, item, digest and values. Raises ValueError where one is missing."""
    try:
        values = list(zip(row["values"], row["problems"], strict=True))
        return row["metric"], row["id"], row["sha256"], values
    except KeyError as error:
        raise ValueError(f"no {error}") from error
