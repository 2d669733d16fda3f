"""``flip eval candidates``: N responses to each prompt from a policy, to a file that best-of-N reads. Resumable.

A line a prompt, in the prompts' order, `CANDIDATE_FIELDS` its keys::

    {"id", "prompt": text or messages, "responses": [...], "finish_reasons": [...], "meta": {...}, "subset"}

`meta` is what the benchmark's metric needs. ``FILE.settings`` says by which policy, with which sampling and seed.
Candidate k of a prompt is sampled with a seed made of the run's, the prompt's id and k: the same whatever ran before
it, and another for every candidate.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from flip_plugin.errors import CommandError
from flip_plugin.evals.data.benchmarks import BENCHMARKS, load_prompts
from flip_plugin.evals.data.sources import RowError, misfit, read_rows
from flip_plugin.evals.judges.spec import JudgeSpec, open_model
from flip_plugin.evals.records.items import EvalItem
from flip_plugin.files.atomic import write_text
from flip_plugin.files.jsonl import as_line, open_for_append, read_as
from flip_plugin.files.locks import hold_file, let_go_file
from flip_plugin.judge.client import JudgeClient
from flip_plugin.prompts.target import normalize_messages

CANDIDATE_FIELDS: Mapping[str, Any] = {
    "id": str,
    "prompt": str | list,
    "responses": list[str | None],
    "finish_reasons": list[str | None] | None,
    "meta": dict | None,
    "subset": str | None,
}
# After so many prompts in a row for which the policy's server failed, the run ends.
MAX_FAILURES_IN_A_ROW = 8
# What a request itself is at fault for; asking again would not help, and there is no response.
OWN_FAULT = frozenset({"context_overflow", "bad_request"})

DESCRIPTION = """\
Sample N responses to each prompt of a benchmark from a policy, for `flip eval best_of_n --candidates FILE`.
The same command continues a stopped one.

  flip eval candidates --benchmark ifeval --policy vllm:allenai/Llama-3.1-Tulu-3-8B --output ifeval.jsonl
  flip eval candidates --benchmark prompts --data rows.jsonl \\
      --policy hosted_vllm/policy@http://127.0.0.1:8000/v1 --num_candidates 8 --output candidates.jsonl
"""


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """The options that say which prompts, and how candidates are drawn."""
    group = parser.add_argument_group("prompts and candidates")
    group.add_argument(
        "--benchmark", choices=tuple(BENCHMARKS), help="where the prompts come from; decides columns and metric, too"
    )
    group.add_argument("--num_prompts", type=int, default=300, help="prompts to draw (default: 300, the paper's)")
    group.add_argument(
        "--data_seed", type=int, default=1, help="seed of the draw of prompts, and of the candidates (default: 1)"
    )
    group.add_argument("--num_candidates", type=int, default=16, help="candidates a prompt (default: 16, the paper's)")
    group.add_argument(
        "--policy", metavar="MODEL[@URL]", help="the model that writes the candidates, in the form of --judges"
    )
    group.add_argument("--policy_temperature", type=float, default=1.0, help="default: 1.0 (the paper's is not known)")
    group.add_argument("--policy_top_p", type=float, default=1.0, help="default: 1.0")
    group.add_argument(
        "--policy_max_tokens", type=int, default=2048, help="longest candidate, in tokens (default: 2048)"
    )
    group.add_argument("--policy_thinking", action="store_true", help="let the policy think first")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``flip eval candidates``."""
    add_sampling(parser)
    parser.add_argument("--data", help="instead of the benchmark's own data: an id, or a file of the same schema")
    parser.add_argument("--split", help="split of a Hugging Face data set")
    parser.add_argument("--output", required=True, type=Path, help="the file to write")
    parser.add_argument("--overwrite", action="store_true", help="remove the file, and start anew")
    parser.add_argument("--max_concurrency", type=int, default=64, help="calls to a server in flight (default: 64)")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds a call, retries included (default: 600)")


def run(args: argparse.Namespace) -> int:
    """Sample what is missing. The exit status."""
    if not args.benchmark or not args.policy:
        raise CommandError("--benchmark and --policy are required")
    prompts = load_prompts(args.benchmark, args.data, split=args.split, count=args.num_prompts, seed=args.data_seed)
    items = generate(prompts, args, args.output, timeout=args.timeout, max_concurrency=args.max_concurrency)
    print(f"{args.output}: {len(items)} prompts, {args.num_candidates} candidates each")
    return 0


def generate(
    prompts: Sequence[EvalItem],
    args: argparse.Namespace,
    path: Path,
    *,
    timeout: float = 600.0,
    max_concurrency: int = 64,
) -> list[EvalItem]:
    """The candidates of `path`, sampled as the options of `add_sampling` say where they are not there yet.

    Raises `CommandError` when the file was made with other settings or holds other prompts, when another process
    is writing it, and when the policy fails.
    """
    if args.num_candidates < 1 or args.policy_max_tokens < 1 or args.policy_temperature < 0:
        raise CommandError(
            "--num_candidates and --policy_max_tokens must be at least 1, --policy_temperature 0 or more"
        )
    policy = JudgeSpec.parse(args.policy)
    settings = {
        "policy": policy.model,
        "num_candidates": args.num_candidates,
        "temperature": args.policy_temperature,
        "top_p": args.policy_top_p,
        "max_tokens": args.policy_max_tokens,
        "thinking": args.policy_thinking,
        "seed": args.data_seed,
        # Other prompts would take the place of these.
        "prompts": hashlib.sha256("\n".join(item.id for item in prompts).encode()).hexdigest(),
    }
    hold_file(path)
    _check_settings(path, settings, getattr(args, "overwrite", False))
    partial = path.with_name(f"{path.name}.partial")
    done = {item.id: item for item in [*_known(path), *_known(partial)]}
    _check_prompts(path, prompts, done)
    write_text(_settings_file(path), json.dumps(settings, indent=1) + "\n")
    missing = [item for item in prompts if item.id not in done]
    if missing:
        sampling: dict[str, Any] = {
            "temperature": args.policy_temperature,
            "max_tokens": args.policy_max_tokens,
            "thinking": args.policy_thinking,
            "extra_body": {"top_p": args.policy_top_p} if args.policy_top_p != 1.0 else None,
        }
        # No cache: a candidate is a sample, and kept in the file itself.
        with (
            open_model(policy, timeout=timeout, max_concurrency=max_concurrency) as client,
            open_for_append(partial) as file,
        ):
            sampled = asyncio.run(_sample_all(client(**sampling), missing, args.num_candidates, args.data_seed, file))
        done.update((item.id, item) for item in sampled)
    items = [done[item.id] for item in prompts]
    if missing or not path.exists():
        write_text(path, "".join(_line(item) for item in items))
        partial.unlink(missing_ok=True)
    let_go_file(path)
    return items


def read_candidates(path: str | Path) -> list[EvalItem]:
    """The items of a candidates file.

    Raises `RowError` for a row that does not fit or has no response, and for an id that is there twice.
    """
    items: dict[str, EvalItem] = {}
    for number, row in read_rows(str(path), schema=CANDIDATE_FIELDS):
        item = _from_row(row)
        reasons = item.meta.get("finish_reasons")
        if not item.responses:
            raise RowError(str(path), number, "there is no response")
        if reasons is not None and len(reasons) != len(item.responses):
            raise RowError(str(path), number, f"{len(item.responses)} responses, but {len(reasons)} finish reasons")
        if item.id in items:
            raise RowError(str(path), number, f"the id {item.id!r} was there before")
        items[item.id] = item
    return list(items.values())


async def _sample_all(
    client: JudgeClient, prompts: Sequence[EvalItem], n: int, seed: int, file: IO[str]
) -> list[EvalItem]:
    from tqdm import tqdm

    # One iterator for all; a few prompts more than the calls at a time, so that none of those waits.
    waiting, items, failures = iter(prompts), [], 0
    width = client.max_concurrency // n + 2

    async def worker(bar: Any) -> None:
        nonlocal failures
        for prompt in waiting:
            item, error = await _sample(client, prompt, n, seed)
            if item is None:
                failures += 1
                if failures >= MAX_FAILURES_IN_A_ROW:
                    raise CommandError(
                        f"the policy failed for {failures} prompts in a row ({error}): what is done is kept"
                    )
                continue
            failures = 0
            file.write(_line(item))
            file.flush()
            items.append(item)
            bar.update()

    with tqdm(total=len(prompts), unit="prompt", desc="candidates") as bar:
        workers = [asyncio.create_task(worker(bar)) for _ in range(width)]
        try:
            await asyncio.gather(*workers)
        finally:
            for one in workers:
                one.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    if len(items) < len(prompts):
        left = len(prompts) - len(items)
        raise CommandError(f"the policy failed for {left} of {len(prompts)} prompts: run the same command again")
    return items


async def _sample(client: JudgeClient, prompt: EvalItem, n: int, seed: int) -> tuple[EvalItem | None, str | None]:
    """The prompt with its candidates; None and the error where the policy's server failed on one."""
    turns = [{"role": "user", "content": prompt.prompt}] if isinstance(prompt.prompt, str) else prompt.prompt
    messages = normalize_messages(turns)
    replies = await asyncio.gather(
        *(client.complete(messages, seed=candidate_seed(seed, prompt.id, k)) for k in range(n))
    )
    failed = next((one for one in replies if one.error and one.error_kind not in OWN_FAULT), None)
    if failed is not None:
        return None, failed.error
    errors = sorted({one.error for one in replies if one.error})
    meta = {**prompt.meta, "finish_reasons": [one.finish_reason for one in replies]}
    responses = [None if one.error else one.text or "" for one in replies]
    return replace(prompt, responses=responses, meta=meta | ({"errors": errors} if errors else {})), None


def candidate_seed(seed: int, prompt_id: str, k: int) -> int:
    """31 bits of a hash: no two candidates share their random numbers, and none depends on what ran before."""
    digest = hashlib.sha256(f"{seed}\n{k}\n{prompt_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _known(path: Path) -> list[EvalItem]:
    """What was sampled before, without the half of a line that a kill left."""

    def damaged(number: int, problem: str) -> RowError:
        return RowError(
            str(path), number, f"not a line of candidates ({problem}): name another file, or use --overwrite"
        )

    return list(read_as(path, _checked_item, damaged)) if path.exists() else []


def _checked_item(row: dict[str, Any]) -> EvalItem:
    problem = misfit(row, CANDIDATE_FIELDS)
    if problem:
        raise ValueError(problem)
    return _from_row(row)


def _from_row(row: Mapping[str, Any]) -> EvalItem:
    meta = dict(row.get("meta") or {})
    if row.get("finish_reasons"):
        meta["finish_reasons"] = list(row["finish_reasons"])
    return EvalItem(row["id"], row["prompt"], list(row["responses"]), subset=row.get("subset") or "", meta=meta)


def _line(item: EvalItem) -> str:
    meta = {name: value for name, value in item.meta.items() if name != "finish_reasons"}
    row = {
        "id": item.id,
        "prompt": item.prompt,
        "responses": list(item.responses),
        "finish_reasons": item.meta.get("finish_reasons"),
        "meta": meta,
        "subset": item.subset,
    }
    return as_line(row)


def _check_settings(path: Path, settings: Mapping[str, Any], overwrite: bool) -> None:
    file, partial = _settings_file(path), path.with_name(f"{path.name}.partial")
    if overwrite:
        for one in (path, partial, file):
            one.unlink(missing_ok=True)
    begun = path.exists() or partial.exists()
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() and begun else None
    if before is not None and before != settings:
        differs = ", ".join(
            f"{name} was {before.get(name)!r}, now {settings.get(name)!r}"
            for name in settings
            if before.get(name) != settings.get(name)
        )
        raise CommandError(f"{path} was made otherwise ({differs}): name another file, or use --overwrite")


def _check_prompts(path: Path, prompts: Sequence[EvalItem], done: Mapping[str, EvalItem]) -> None:
    """What is in the file must be of these prompts: the others would be lost when it is written."""
    wanted = {item.id: item.prompt for item in prompts}
    for name, item in done.items():
        if name not in wanted:
            raise CommandError(f"{path} has the prompt {name!r}, too: name another file, or use --overwrite")
        if item.prompt != wanted[name]:
            raise CommandError(f"{path} has another prompt with the id {name!r}: name another file, or use --overwrite")


def _settings_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.settings")
