"""The prompts of best-of-N: named benchmarks with their columns, from the hub or from local files of their schema.

    name            data, split, as published                        kept in `meta`           default metric
    ifeval          google/IFEval, train                             instructions, arguments  ifeval
    math            HuggingFaceH4/MATH-500, test (or a Hendrycks MATH set)  answer            math
    alpaca_eval     tatsu-lab/alpaca_eval, alpaca_eval.json          reference output         none: rm:... or judge:...
    human_interest  data/human_interest.json of BunsenFeng/model_collaboration, test          none: rm:... or judge:...
    prompts         any file with `prompt` (text) or `messages`      ground_truth             none: module:function

The paper (arXiv 2602.13551) draws 300 test instructions of each of the first four; which ones is not published. Here
they are drawn by a seed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flip_plugin.errors import CommandError
from flip_plugin.evals.data.sources import RowError, misfit, read_rows
from flip_plugin.evals.records.items import EvalItem
from flip_plugin.prompts.target import NoTarget, normalize_messages


@dataclass(frozen=True)
class Benchmark:
    """Where prompts come from.

    `file` is one of the data set's files, read as it is. `nested` files hold one object with the rows under `split`.
    """

    name: str
    schema: Mapping[str, Any]
    prompt: str
    data: str | None = None
    split: str | None = None
    file: str | None = None
    nested: bool = False
    id: str | None = None
    metric: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    where: str = ""


BENCHMARKS: dict[str, Benchmark] = {
    one.name: one
    for one in (
        Benchmark(
            "ifeval",
            {"key": int | str, "prompt": str, "instruction_id_list": list[str], "kwargs": list},
            prompt="prompt",
            data="google/IFEval",
            split="train",
            id="key",
            metric="ifeval",
            meta={"instruction_id_list": "instruction_id_list", "kwargs": "kwargs"},
        ),
        Benchmark(
            "math",
            {"problem": str, "solution": str, "answer": str | None, "unique_id": str | None},
            prompt="problem",
            data="HuggingFaceH4/MATH-500",
            split="test",
            id="unique_id",
            metric="math",
            meta={"answer": "answer", "solution": "solution"},
        ),
        Benchmark(
            "alpaca_eval",
            {"instruction": str, "output": str | None},
            prompt="instruction",
            data="tatsu-lab/alpaca_eval",
            file="alpaca_eval.json",
            meta={"reference": "output"},
        ),
        Benchmark(
            "human_interest",
            {"input": str, "output": str | None},
            prompt="input",
            split="test",
            nested=True,
            meta={"reference": "output"},
            where="get data/human_interest.json from github.com/BunsenFeng/model_collaboration",
        ),
        Benchmark(
            "prompts",
            {"prompt": str | None, "messages": list | None},
            prompt="prompt",
            id="id",
            meta={"ground_truth": "ground_truth"},
            where="any .jsonl, .json or .parquet file with a column prompt or messages",
        ),
    )
}


def load_prompts(
    name: str, source: str | None = None, *, split: str | None = None, count: int | None = 300, seed: int = 1
) -> list[EvalItem]:
    """`count` prompts of a benchmark as items without responses, drawn by `seed`, in the data's order; None: all.

    `source` replaces the benchmark's own data. Raises `CommandError`, and `RowError` for a row that does not fit.
    """
    if name not in BENCHMARKS:
        raise CommandError(f"unknown benchmark {name!r}: there are {', '.join(BENCHMARKS)}")
    benchmark = BENCHMARKS[name]
    source = source or benchmark.data
    if source is None:
        raise CommandError(f"benchmark {name} needs --data FILE: {benchmark.where}")
    items = []
    seen: set[str] = set()
    for number, row in _rows(benchmark, source, split):
        item = _item(benchmark, source, number, row)
        if item.id in seen:
            raise RowError(source, number, f"the id {item.id!r} was there before")
        seen.add(item.id)
        items.append(item)
    if count is None or count >= len(items):
        return items
    kept = sorted(random.Random(f"{name} {seed}").sample(range(len(items)), count))
    return [items[index] for index in kept]


def _rows(benchmark: Benchmark, source: str, split: str | None) -> Iterator[tuple[int, dict[str, Any]]]:
    path = Path(source)
    if benchmark.nested and path.is_file() and path.suffix == ".json":
        yield from _nested(path, split or benchmark.split or "test", benchmark.schema)
        return
    if benchmark.file and not path.exists() and source == benchmark.data:
        source = _hub_file(source, benchmark.file)
    yield from read_rows(source, split=split or benchmark.split, schema=benchmark.schema)


def _nested(path: Path, split: str, schema: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows under the key `split` of one JSON object, or those of a plain list."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CommandError(f"{path}: not JSON ({error})") from error
    rows = content.get(split) if isinstance(content, dict) else content
    if not isinstance(rows, list) or not rows:
        has = ", ".join(content) if isinstance(content, dict) else type(content).__name__
        raise CommandError(f"{path} has no rows under {split!r} (it has {has}): choose with --split")
    for number, row in enumerate(rows, start=1):
        problem = misfit(row, schema) if isinstance(row, dict) else f"an object was expected, not {row!r:.40}"
        if problem:
            raise RowError(f"{path} ({split})", number, problem)
        yield number, row


def _hub_file(repository: str, file: str) -> str:
    """A local copy of one file of a data set, whose own loading script `datasets` does not run any more."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return hf_hub_download(repository, file, repo_type="dataset")
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CommandError(
            f"{file} of {repository} could not be had ({reason}): name a local copy with --data"
        ) from error


def _item(benchmark: Benchmark, source: str, number: int, row: Mapping[str, Any]) -> EvalItem:
    prompt: Any = row.get(benchmark.prompt)
    if benchmark.name == "prompts" and row.get("messages") is not None:
        prompt = _messages(source, number, row["messages"])
    if not prompt or (isinstance(prompt, str) and not prompt.strip()):
        wanted = "prompt or messages" if benchmark.name == "prompts" else benchmark.prompt
        raise RowError(source, number, f"column {wanted!r} is empty or missing")
    meta = {name: row[column] for name, column in benchmark.meta.items() if row.get(column) is not None}
    if benchmark.name == "math":
        answer = meta.get("answer") or last_boxed(meta["solution"])
        if not answer:
            raise RowError(
                source, number, r"there is no answer: neither a column 'answer' nor a \boxed{} in 'solution'"
            )
        meta["answer"] = answer
    if benchmark.name == "ifeval":
        ids, kwargs = meta["instruction_id_list"], meta["kwargs"]
        if not ids or len(ids) != len(kwargs) or not all(isinstance(one, dict | None) for one in kwargs):
            raise RowError(
                source, number, f"{len(ids)} instructions, but kwargs are not as many objects: {kwargs!r:.80}"
            )
        meta["kwargs"] = [{k: v for k, v in (one or {}).items() if v is not None} for one in kwargs]
    own = row.get(benchmark.id) if benchmark.id else None
    return EvalItem(str(number if own is None else own), prompt, (), subset=benchmark.name, meta=meta)


def _messages(source: str, number: int, messages: Any) -> list[dict[str, Any]]:
    """The conversation up to its last turn of the user; what follows is the answer."""
    try:
        turns = normalize_messages(messages)
    except NoTarget as error:
        raise RowError(source, number, str(error)) from error
    while turns and turns[-1]["role"] == "assistant":
        turns.pop()
    return [dict(turn) for turn in turns]


def last_boxed(text: str) -> str | None:
    r"""What stands in the last ``\boxed{...}`` (or ``\fbox``), braces paired; None without one.

    >>> last_boxed(r"so $\boxed{1}$, no: $\boxed{\frac{1}{2}}$.")
    '\\frac{1}{2}'
    """
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    begin = text.index("{", start) + 1
    depth = 1
    for at in range(begin, len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0:
            return text[begin:at].strip() or None
    return None
