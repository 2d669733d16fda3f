"""The command ``flip``: score, rescore, inspect, serve.

``flip score`` can be stopped and run again: results are appended, in order, to
``OUTPUT.partial``, which takes its final name when the last row is done. Bad input
rows are found before the first judge call and named by line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import textwrap
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from flip_plugin.baselines import PointwiseJudge
from flip_plugin.judge import JudgeClient
from flip_plugin.metrics import get_similarity
from flip_plugin.prompts import PromptSet
from flip_plugin.records import read_calls, rescore
from flip_plugin.reward import STATUSES, FlipResult, FlipReward, JudgedReward
from flip_plugin.target import NoTarget, normalize_messages

# This many judge errors in a row, from the start of a run on, and it stops: the judge is down.
HOPELESS = 32
ASKED = ("messages", "prompt", "response")


class CommandError(ValueError):
    """What the user has to change; printed without a traceback."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status (0 done, 1 failed, 2 wrong use, 130 stopped)."""
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except (CommandError, FileNotFoundError, ValueError) as error:
        print(f"flip {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"flip {args.command}: stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="flip", description="Rewards from backward inference.")
    commands = parser.add_subparsers(dest="command", required=True)

    score = commands.add_parser("score", help="judge the responses in a JSONL file")
    score.add_argument("--input", required=True, type=Path, help="rows with messages (or prompt) and response")
    score.add_argument("--output", required=True, type=Path, help="the rows with their results, in order")
    score.add_argument("--judge_model", required=True, help="LiteLLM name, e.g. hosted_vllm/Qwen/Qwen3-4B")
    score.add_argument("--api_base", help="the judge's URL; commas separate several")
    score.add_argument("--judge_type", default="flip", choices=("flip", "quality"))
    score.add_argument("--target", default="auto", choices=("auto", "user", "system"))
    score.add_argument("--similarity", default="f1")
    score.add_argument("--prompts", help="folder of *.prompt files")
    score.add_argument("--temperature", type=float, default=0.0)
    score.add_argument("--max_tokens", type=int, default=512, help="of the judge's reply")
    score.add_argument("--max_context_length", type=int, help="the judge's window in tokens")
    score.add_argument("--timeout", type=float, default=60.0, help="seconds a call, retries included")
    score.add_argument("--max_concurrency", type=int, default=64)
    score.add_argument("--seed", type=int)
    score.add_argument("--cache", help="SQLite file that keeps the judge's replies")
    score.add_argument("--record_calls_to", help="folder for the judge calls")
    score.add_argument("--thinking", action="store_true", help="let the judge think first")
    score.add_argument("--no_schema", action="store_true", help="do not ask for structured output")
    score.add_argument("--skip_truncated", action="store_true", help="no score where finish_reason is 'length'")
    score.add_argument("--overwrite", action="store_true", help="start anew, whatever is there")
    score.set_defaults(run=_score)

    again = commands.add_parser("rescore", help="score recorded judge calls again, without a judge")
    again.add_argument("--input", required=True, help="a file or folder of judge calls")
    again.add_argument("--output", required=True, type=Path)
    again.add_argument("--similarity", default="f1")
    again.set_defaults(run=_rescore)

    look = commands.add_parser("inspect", help="read recorded judge calls")
    look.add_argument("input", help="a file or folder of judge calls")
    look.add_argument("--status", choices=STATUSES)
    look.add_argument("--sort", choices=("score", "-score", "echo", "-echo"), help="a minus: highest first")
    look.add_argument("--limit", type=int, default=10)
    look.set_defaults(run=_inspect)

    serve = commands.add_parser("serve", help="serve a judge model with vLLM")
    serve.add_argument("--model", required=True)
    serve.add_argument("--num_replicas", type=int, default=1)
    serve.add_argument("--port", type=int, default=0, help="0: any free port (one each for several replicas)")
    serve.add_argument("--max_model_len", type=int)
    serve.add_argument("--log_dir", default="judge_logs")
    serve.set_defaults(run=_serve)
    return parser


def _score(args: argparse.Namespace) -> int:
    rows = read_rows(args.input)
    partial = Path(f"{args.output}.partial")
    if args.overwrite:
        args.output.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)
    if args.output.exists():
        if _kept(args.output, rows, mend=False) == len(rows):
            print(f"{args.output} already has all {len(rows)} rows", file=sys.stderr)
            return 0
        raise CommandError(f"{args.output} exists with fewer rows: remove it, or use --overwrite")
    reward = _reward(args)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    _check_settings(partial, reward)
    done = _kept(partial, rows) if partial.exists() else 0
    with partial.open("a", encoding="utf-8", errors="backslashreplace") as file:
        asyncio.run(_score_rows(reward, rows, done, file))
    counts = _summary(partial)
    os.replace(partial, args.output)
    _settings_file(partial).unlink()
    print(f"{args.output}: {counts}", file=sys.stderr)
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
    client = JudgeClient(
        args.judge_model,
        args.api_base,
        temperature=args.temperature,
        max_tokens=args.max_tokens,
        timeout=args.timeout,
        max_concurrency=args.max_concurrency,
        seed=args.seed,
        thinking=args.thinking,
        cache_path=args.cache,
    )
    options: dict[str, Any] = {
        "target": args.target,
        "schema": not args.no_schema,
        "prompts": PromptSet.load(args.prompts),
        "max_context_length": args.max_context_length,
        "skip_truncated": args.skip_truncated,
        "record": args.record_calls_to,
        "client": client,
    }
    if args.judge_type == "flip":
        return FlipReward(args.judge_model, similarity=args.similarity, **options)
    return PointwiseJudge(args.judge_model, **options)


def _settings_file(partial: Path) -> Path:
    return Path(f"{partial}.settings")


def _check_settings(partial: Path, reward: JudgedReward) -> None:
    """Two judges must not share an output: what decides the scores stands next to the partial file."""
    settings = {
        "judge": [reward.judge_type, reward.client.model, reward.client.sampling],
        "prompts": reward.prompts.hashes(),
        "target": reward.target,
        "schema": reward.schema,
        "skip_truncated": reward.skip_truncated,
        "window": reward.max_context_length,
        "similarity": getattr(getattr(reward, "similarity", None), "__qualname__", None),
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


def _summary(path: Path) -> str:
    counts: Counter[str] = Counter()
    scores = []
    with path.open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            counts[row["status"]] += 1
            scores += [row["score"]] if row["score"] is not None else []
    mean = f", mean score {sum(scores) / len(scores):.4f}" if scores else ""
    return ", ".join(f"{count} {status}" for status, count in counts.most_common()) + mean


def _rescore(args: argparse.Namespace) -> int:
    similarity = get_similarity(args.similarity)
    before, after, others = [], [], 0
    with args.output.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for call in read_calls(args.input):
            if call["judge_type"] != "flip":
                others += 1
                continue
            new = rescore(call, similarity)
            before += [call["score"]] if call["score"] is not None else []
            after += [new["score"]] if new["score"] is not None else []
            row = {"id": call["id"], "target": call["target"], "score_before": call["score"], **new}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"recorded: {_mean(before)}\n{args.similarity}: {_mean(after)}")
    if others:
        print(f"{others} calls of other judge types left out", file=sys.stderr)
    return 0


def _mean(scores: list[float]) -> str:
    return f"mean {sum(scores) / len(scores):.4f} over {len(scores)} scores" if scores else "no scores"


def _inspect(args: argparse.Namespace) -> int:
    calls: Iterator[dict[str, Any]] = (call for call in read_calls(args.input) if args.status in (None, call["status"]))
    chosen = list(calls)
    if args.sort:
        key, highest = args.sort.lstrip("-"), args.sort.startswith("-")
        chosen = [call for call in chosen if call[key] is not None]
        chosen.sort(key=lambda call: call[key], reverse=highest)
    for call in chosen[: args.limit]:
        print(_shown(call))
    print(f"{min(args.limit, len(chosen))} of {len(chosen)} calls", file=sys.stderr)
    return 0


def _shown(call: dict[str, Any]) -> str:
    score = "none" if call["score"] is None else f"{call['score']:.3f}"
    asked = call["messages"][-1]["content"] if call["messages"] else ""
    lines = [f"== {call['id']}  {call['status']}  score {score}  echo {call['echo']}  {call['seconds']:.2f} s"]
    for name, value in (
        ("target", call["target"]),
        ("inferred", call["inferred_instruction"]),
        ("reasoning", call["reasoning"]),
        ("error", call["error"]),
        ("asked", textwrap.shorten(asked, 600)),
    ):
        lines += [f"   {name}: {value}"] if value else []
    return "\n".join(lines)


def _serve(args: argparse.Namespace) -> int:
    from flip_plugin.serving import JudgeServerError, serve_forever

    if args.port and args.num_replicas > 1:
        raise CommandError("--port is for one replica; without it each takes a free port")
    try:
        serve_forever(
            args.model,
            args.num_replicas,
            log_dir=args.log_dir,
            port=args.port,
            max_model_len=args.max_model_len,
        )
    except JudgeServerError as error:
        raise CommandError(str(error)) from error
    return 0


if __name__ == "__main__":
    sys.exit(main())
