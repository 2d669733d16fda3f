"""``flip score``: judge the responses in a JSONL file. Safe to stop and to run again.

Results are appended, in order, to ``OUTPUT.partial``, which takes its final name when the
last row is done. Bad input rows are found before the first judge call and named by line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections import Counter, deque
from pathlib import Path
from typing import Any, TextIO

from flip_plugin.baselines import PointwiseJudge
from flip_plugin.echo import ECHO_POLICIES
from flip_plugin.judged import JudgedReward
from flip_plugin.result import FlipResult
from flip_plugin.reward import FlipReward
from flip_plugin.target import NoTarget, normalize_messages

# This many judge errors in a row, from the start of a run on, and it stops: the judge is down.
HOPELESS = 32
ASKED = ("messages", "prompt", "response")

DESCRIPTION = """\
Judge the responses in a JSONL file. Each row holds `messages` (OpenAI's form) or `prompt`
(text), and `response`; `finish_reason` is used where it is there. Every row comes out once,
in order, with score, status, inferred_instruction, target, reasoning, echo, usage, seconds,
error and similarity added. `score` is null where a judgement failed; `status` says why.
Stopped or killed, it goes on where it was when the same command is run again.

  flip serve --model Qwen/Qwen3-4B                      # a judge, in another terminal
  export HOSTED_VLLM_API_BASE=http://127.0.0.1:8000/v1  # as it prints
  flip score --input rows.jsonl --output scored.jsonl --judge_model hosted_vllm/Qwen/Qwen3-4B
"""


class CommandError(ValueError):
    """What the user has to change; printed without a traceback."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``flip score``."""
    files = parser.add_argument_group("files")
    files.add_argument("--input", required=True, type=Path, help="rows with messages (or prompt) and response")
    files.add_argument("--output", required=True, type=Path, help="the rows with their results, in order")
    files.add_argument("--overwrite", action="store_true", help="start anew, whatever is there")
    files.add_argument("--record_calls_to", help="folder for the judge calls, for rescore and inspect")
    files.add_argument("--cache", help="SQLite file that keeps the judge's replies; several runs may share it")

    reward = parser.add_argument_group("the reward")
    reward.add_argument(
        "--judge_type", default="flip", choices=("flip", "quality"), help="quality: a pointwise rating instead"
    )
    reward.add_argument(
        "--target",
        default="auto",
        choices=("auto", "user", "system"),
        help="what is recovered; auto: the system prompt where there is one, else the last user turn",
    )
    reward.add_argument("--similarity", default="f1", help="f1, unicode_f1, rouge_l, embedding:MODEL (f1)")
    reward.add_argument(
        "--flip_echo",
        "--echo",
        dest="echo",
        default="report",
        choices=ECHO_POLICIES,
        help="what to do about a response that restates its instruction (report)",
    )
    reward.add_argument("--answer_only", action="store_true", help="no reasoning before the judge's answer")
    reward.add_argument("--skip_truncated", action="store_true", help="no score where finish_reason is 'length'")

    judge = parser.add_argument_group("the judge")
    judge.add_argument("--judge_model", required=True, help="LiteLLM name, e.g. hosted_vllm/Qwen/Qwen3-4B")
    judge.add_argument("--api_base", help="the judge's URL; commas separate several ($HOSTED_VLLM_API_BASE)")
    judge.add_argument("--preset", choices=("paper",), help="the published settings; other flags override them")
    judge.add_argument("--prompts", help="folder of *.prompt files instead of ours, such as the published one")
    judge.add_argument("--temperature", type=float, help="(0)")
    judge.add_argument("--max_tokens", type=int, help="of the judge's reply (512)")
    judge.add_argument("--max_context_length", type=int, help="the judge's window in tokens (what its server has)")
    judge.add_argument("--timeout", type=float, help="seconds a call, retries included (60)")
    judge.add_argument("--max_concurrency", type=int, help="calls in flight (64)")
    judge.add_argument("--seed", type=int, help="of the judge's sampling")
    judge.add_argument("--thinking", action="store_true", help="let the judge think first; raise --max_tokens, too")
    judge.add_argument("--no_schema", action="store_true", help="do not ask for structured output")


def run(args: argparse.Namespace) -> int:
    rows = read_rows(args.input)
    reward = _reward(args)  # an option of no use is an error here, before anything is removed
    partial = Path(f"{args.output}.partial")
    if args.overwrite:
        args.output.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)
    if args.output.exists():
        if _kept(args.output, rows, mend=False) == len(rows):
            print(f"{args.output} already has all {len(rows)} rows", file=sys.stderr)
            return 0
        raise CommandError(f"{args.output} exists with fewer rows: remove it, or use --overwrite")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    _check_settings(partial, reward, args)
    done = _kept(partial, rows) if partial.exists() else 0
    with partial.open("a", encoding="utf-8", errors="backslashreplace") as file:
        asyncio.run(_score_rows(reward, rows, done, file))
    counts, told = _summary(partial)
    if counts["judge_error"] == counts.total():
        with partial.open(encoding="utf-8") as lines:
            said = json.loads(next(lines))["error"]
        raise CommandError(f"the judge failed for every row ({said}). Run the same command again when it is back.")
    os.replace(partial, args.output)
    _settings_file(partial).unlink()
    print(f"{args.output}: {told}", file=sys.stderr)
    return 0


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file. Raises `CommandError` with the line of the first bad one."""
    rows = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise CommandError(f"{path}:{number}: not JSON ({error})") from error
            problem = _problem(row)
            if problem:
                raise CommandError(f"{path}:{number}: {problem}")
            rows.append(row)
    if not rows:
        raise CommandError(f"{path} has no rows")
    return rows


def _problem(row: Any) -> str | None:
    if not isinstance(row, dict):
        return f"a row must be an object, not {type(row).__name__}"
    if "messages" not in row and "prompt" not in row:
        return "the row has neither 'messages' nor 'prompt'"
    if "response" not in row:
        return "the row has no 'response'"
    if not isinstance(row["response"], (str, type(None))):
        return f"'response' must be text, not {type(row['response']).__name__}"
    asked = row.get("messages", row.get("prompt"))
    if not isinstance(asked, (str, list)):
        return f"'messages' must be a list and 'prompt' text, not {type(asked).__name__}"
    if isinstance(asked, list):
        try:
            normalize_messages(asked)
        except NoTarget as error:
            return str(error)
    return None


def _reward(args: argparse.Namespace) -> JudgedReward:
    given = {
        "temperature": args.temperature,
        "max_tokens": args.max_tokens,
        "timeout": args.timeout,
        "max_concurrency": args.max_concurrency,
        "seed": args.seed,
        "thinking": args.thinking or None,
        "cache_path": args.cache,
        "preset": args.preset,
        "prompts": args.prompts,
        "max_context_length": args.max_context_length,
        "schema": False if args.no_schema else None,
        "record": args.record_calls_to,
    }
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    options |= {"target": args.target, "skip_truncated": args.skip_truncated}
    if args.judge_type == "flip":
        options |= {"similarity": args.similarity, "echo": args.echo, "reasoning": not args.answer_only}
        return FlipReward(args.judge_model, args.api_base, **options)
    return PointwiseJudge(args.judge_model, args.api_base, **options)


def _settings_file(partial: Path) -> Path:
    return Path(f"{partial}.settings")


def _check_settings(partial: Path, reward: JudgedReward, args: argparse.Namespace) -> None:
    """Two judges must not share an output: what decides the scores stands next to the partial file."""
    settings = {
        "judge": [reward.judge_type, reward.client.model, reward.client.sampling],
        "prompts": reward.prompts.hashes(),
        "target": reward.target,
        "schema": reward.schema,
        "skip_truncated": reward.skip_truncated,
        "window": reward.max_context_length,
        "similarity": args.similarity,
        "echo": reward.echo_policy,
        "answer_only": args.answer_only,
    }
    text, file = json.dumps(settings, indent=1, sort_keys=True), _settings_file(partial)
    if partial.exists() and file.exists() and file.read_text(encoding="utf-8") != text:
        raise CommandError(f"{partial} was begun with other settings: remove it, or use --overwrite")
    file.write_text(text, encoding="utf-8")


def _kept(partial: Path, rows: list[dict[str, Any]], mend: bool = True) -> int:
    """How many leading rows `partial` has; `mend` cuts off a half-written last line and closing judge errors.

    Raises `CommandError` when it was made from other input.
    """
    kept = pending = end = at = 0
    with partial.open("rb") as lines:
        for number, line in enumerate(lines):
            at += len(line)
            if not line.endswith(b"\n"):
                break
            row = json.loads(line)
            if number >= len(rows) or any(row.get(key) != rows[number].get(key) for key in ASKED):
                raise CommandError(f"{partial}: line {number + 1} is not the input's: remove it, or use --overwrite")
            pending += 1
            if row["status"] != "judge_error":
                kept, end, pending = kept + pending, at, 0
    if mend:
        os.truncate(partial, end)
        return kept
    return kept + pending


async def _score_rows(reward: JudgedReward, rows: list[dict[str, Any]], done: int, file: TextIO) -> None:
    from tqdm import tqdm

    window: deque[tuple[dict[str, Any], asyncio.Task[FlipResult]]] = deque()
    waiting = iter(rows[done:])
    errors_in_a_row = 0
    with tqdm(total=len(rows), initial=done, unit="row", desc="judged") as bar:
        try:
            while True:
                # A few calls more than the judge takes at once, so that a slow row does not idle it.
                while len(window) < 4 * reward.client.max_concurrency and (row := next(waiting, None)):
                    asked = row.get("messages", row.get("prompt"))
                    task = asyncio.create_task(
                        reward.score(asked, row["response"], finish_reason=row.get("finish_reason"))
                    )
                    window.append((row, task))
                if not window:
                    return
                row, task = window.popleft()
                result = await task
                file.write(json.dumps({**row, **result.to_dict()}, ensure_ascii=False) + "\n")
                file.flush()
                bar.update()
                errors_in_a_row = errors_in_a_row + 1 if result.status == "judge_error" else 0
                if errors_in_a_row >= HOPELESS:
                    raise CommandError(
                        f"the judge failed {HOPELESS} times in a row ({result.error}). "
                        "Run the same command again when it is back."
                    )
        finally:
            for _, task in window:
                task.cancel()
            await asyncio.gather(*(task for _, task in window), return_exceptions=True)


def _summary(path: Path) -> tuple[Counter[str], str]:
    """Rows by status, and the same as a line with the mean score."""
    counts: Counter[str] = Counter()
    scores = []
    with path.open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            counts[row["status"]] += 1
            scores += [row["score"]] if row["score"] is not None else []
    mean = f", mean score {sum(scores) / len(scores):.4f}" if scores else ""
    return counts, ", ".join(f"{count} {status}" for status, count in counts.most_common()) + mean
