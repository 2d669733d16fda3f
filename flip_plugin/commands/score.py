"""``flip score``: judge the responses in a JSONL file. Safe to stop and to run again.

Results are appended, in order, to ``OUTPUT.partial``, which takes its final name when the
last row is done; ``OUTPUT.settings`` keeps two judges from sharing an output. Bad input
rows are found before the first judge call and named by line.
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

from flip_plugin.errors import CommandError
from flip_plugin.files.atomic import write_text
from flip_plugin.files.jsonl import as_line, open_for_append, repair_last_line, whole_lines
from flip_plugin.prompts.target import NoTarget, normalize_messages
from flip_plugin.reward.base import JudgedReward
from flip_plugin.reward.flip import FlipReward
from flip_plugin.reward.pointwise import PointwiseJudge
from flip_plugin.reward.result import FlipResult
from flip_plugin.text.echo import ECHO_POLICIES

# This many judge errors in a row, from the start of a run on, and it stops: the judge is down.
MAX_FAILURES_IN_A_ROW = 32
INPUT_FIELDS = ("messages", "prompt", "response")

DESCRIPTION = """\
Judge the responses in a JSONL file. Each row holds `messages` (OpenAI's form) or `prompt`
(text), `response`, and `finish_reason` if you have it. Every row comes out once, in order, with
score, status, inferred_instruction, target, reasoning, echo, usage, seconds, error and similarity
added. `score` is null where a judgement failed; `status` says why.

If it is stopped or killed, run the same command again: it continues where it was. On a finished output
the same command judges again the rows whose judge failed, and no others. OUTPUT.settings has the
settings that the output was made with.

  flip serve --model Qwen/Qwen3-4B                      # a judge, in another terminal
  export HOSTED_VLLM_API_BASE=http://127.0.0.1:8000/v1  # as it prints
  flip score --input rows.jsonl --output scored.jsonl --judge_model hosted_vllm/Qwen/Qwen3-4B
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``flip score``."""
    files = parser.add_argument_group("files")
    files.add_argument("--input", required=True, type=Path, help="rows with messages (or prompt) and response")
    files.add_argument("--output", required=True, type=Path, help="the rows with their results, in order")
    files.add_argument("--overwrite", action="store_true", help="start anew; what is there is removed")
    files.add_argument("--record_calls_to", help="folder for the judge calls, for rescore and inspect")
    files.add_argument("--cache", help="SQLite file that keeps the judge's replies; several runs may share it")

    reward = parser.add_argument_group("the reward")
    reward.add_argument(
        "--judge_type",
        default="flip",
        choices=("flip", "quality"),
        help="flip: infer the instruction; quality: rate the response (default: flip)",
    )
    reward.add_argument(
        "--target",
        default="auto",
        choices=("auto", "user", "system"),
        help="what is recovered; auto: the system prompt where there is one, else the last user turn",
    )
    reward.add_argument("--similarity", default="f1", help="f1, unicode_f1, rouge_l or embedding:MODEL (default: f1)")
    reward.add_argument(
        "--flip_echo",
        "--echo",
        dest="echo",
        default="report",
        choices=ECHO_POLICIES,
        help="what to do about a response that restates its instruction (default: report)",
    )
    reward.add_argument("--answer_only", action="store_true", help="the judge answers at once, without reasoning first")
    reward.add_argument("--skip_truncated", action="store_true", help="no score where finish_reason is 'length'")

    judge = parser.add_argument_group("the judge")
    judge.add_argument("--judge_model", required=True, help="LiteLLM name, e.g. hosted_vllm/Qwen/Qwen3-4B")
    judge.add_argument(
        "--api_base", help="the judge's URL, or several with commas between (default: $HOSTED_VLLM_API_BASE)"
    )
    judge.add_argument("--preset", choices=("paper",), help="the published settings; other flags override them")
    judge.add_argument("--prompts", help="folder of *.prompt files to use in place of ours")
    judge.add_argument("--temperature", type=float, help="of the judge's sampling (default: 0)")
    judge.add_argument("--max_tokens", type=int, help="length of the judge's reply, at most (default: 512)")
    judge.add_argument(
        "--max_context_length",
        type=int,
        help="the judge's window in tokens; longer responses lose their middle (default: what its server says)",
    )
    judge.add_argument("--timeout", type=float, help="seconds for a judgement, with its retries (default: 60)")
    judge.add_argument("--max_concurrency", type=int, help="calls in flight at a time (default: 64)")
    judge.add_argument("--seed", type=int, help="seed of the judge's sampling")
    judge.add_argument("--thinking", action="store_true", help="let the judge think first; raise --max_tokens, too")
    judge.add_argument("--no_schema", action="store_true", help="do not ask for structured output")


def run(args: argparse.Namespace) -> int:
    """Judge what is not judged yet, in the order of the input. Raises `CommandError` for what the user must change."""
    if args.output.resolve() == args.input.resolve():
        raise CommandError("--output is the --input file: name another")
    rows = read_rows(args.input)
    reward = _reward(args)  # an option of no use is an error here, before anything is removed
    partial = Path(f"{args.output}.partial")
    if args.overwrite:
        for path in (args.output, partial, _settings_file(args.output)):
            path.unlink(missing_ok=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    _check_settings(args, partial, reward)
    known = _lines_judged_before(args.output, rows) if args.output.exists() else {}
    if len(known) == len(rows):
        print(f"{args.output} already has all {len(rows)} rows, judged with these settings", file=sys.stderr)
        return 0
    done = _rows_kept(partial, rows) if partial.exists() else 0
    with open_for_append(partial) as file:
        asyncio.run(_score_rows(reward, rows, done, known, file))
    counts, summary, error = _summary(partial)
    if counts["judge_error"] == counts.total():
        raise CommandError(f"the judge failed for every row ({error}). {_advice(error)}")
    partial.replace(args.output)
    print(f"{args.output}: {summary}", file=sys.stderr)
    if counts["judge_error"]:
        print(f"{error}\nThe same command again asks for the {counts['judge_error']} failed alone.", file=sys.stderr)
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
    """What is wrong with a row; None where it can be judged."""
    if not isinstance(row, dict):
        return f"a row must be an object, not {type(row).__name__}"
    if "messages" not in row and "prompt" not in row:
        return "the row has neither 'messages' nor 'prompt'"
    if "response" not in row:
        return "the row has no 'response'"
    if not isinstance(row["response"], (str, type(None))):
        return f"'response' must be text, not {type(row['response']).__name__}"
    return _prompt_problem(_prompt_of(row))


def _prompt_problem(prompt: Any) -> str | None:
    if not isinstance(prompt, (str, list)):
        return f"'messages' must be a list and 'prompt' text, not {type(prompt).__name__}"
    if isinstance(prompt, list):
        try:
            normalize_messages(prompt)
        except NoTarget as error:
            return str(error)
    return None


def _prompt_of(row: dict[str, Any]) -> Any:
    return row.get("messages", row.get("prompt"))


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


def _settings_file(output: Path) -> Path:
    return Path(f"{output}.settings")


def _check_settings(args: argparse.Namespace, partial: Path, reward: JudgedReward) -> None:
    """Two judges must not share an output: what decides the scores stands in a file next to it."""
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
    text, file = json.dumps(settings, indent=1, sort_keys=True) + "\n", _settings_file(args.output)
    begun = next((path for path in (args.output, partial) if path.exists()), None)
    if begun and file.exists() and file.read_text(encoding="utf-8") != text:
        raise CommandError(f"{begun} was made with other settings ({file}): name another --output, or use --overwrite")
    write_text(file, text)


def _lines_judged_before(output: Path, rows: list[dict[str, Any]]) -> dict[int, str]:
    """The lines of a finished output by row, without those whose judge failed.

    Raises `CommandError` when it was made from other input.
    """
    known = {}
    with output.open(encoding="utf-8") as lines:
        number = -1
        for number, line in enumerate(lines):
            if _of_row(output, line, number, rows)["status"] != "judge_error":
                known[number] = line
    if number + 1 != len(rows):
        raise CommandError(f"{output} has {number + 1} rows and the input {len(rows)}: remove it, or use --overwrite")
    return known


def _rows_kept(partial: Path, rows: list[dict[str, Any]]) -> int:
    """How many leading rows `partial` has, once a half-written last line and closing judge errors are cut off.

    Raises `CommandError` when it was made from other input.
    """
    repair_last_line(partial)
    kept = end = 0
    for line in whole_lines(partial):
        row = _of_row(partial, line.data, line.number - 1, rows)
        if row["status"] != "judge_error":
            kept, end = line.number, line.end
    os.truncate(partial, end)
    return kept


def _of_row(path: Path, line: str | bytes, number: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The result in `line`. Raises `CommandError` unless it is one for row `number`, from 0."""
    try:
        result = json.loads(line)
    except json.JSONDecodeError:
        result = None
    if not isinstance(result, dict) or "status" not in result or number >= len(rows):
        raise CommandError(f"{path}: line {number + 1} is no result for this input: remove it, or use --overwrite")
    if any(result.get(key) != rows[number].get(key) for key in INPUT_FIELDS):
        raise CommandError(f"{path}: line {number + 1} is not the input's: remove it, or use --overwrite")
    return result


async def _score_rows(
    reward: JudgedReward, rows: list[dict[str, Any]], done: int, known: dict[int, str], file: TextIO
) -> None:
    """Append the results of ``rows[done:]`` to `file`, in order; those in `known` as they are."""
    from tqdm import tqdm

    window: deque[tuple[int, asyncio.Task[FlipResult] | None]] = deque()
    waiting = iter(range(done, len(rows)))
    errors_in_a_row = 0
    with tqdm(total=len(rows), initial=done, unit="row", desc="judged") as bar:
        try:
            while True:
                # A few calls more than the judge takes at once, so that a slow row does not idle it.
                while len(window) < 4 * reward.client.max_concurrency and (number := next(waiting, None)) is not None:
                    window.append(
                        (number, None if number in known else asyncio.create_task(_ask(reward, rows[number])))
                    )
                if not window:
                    return
                number, task = window.popleft()
                if task is None:
                    file.write(known[number])
                    bar.update()
                    continue
                result = await task
                file.write(as_line({**rows[number], **result.to_dict()}))
                file.flush()
                bar.update()
                errors_in_a_row = errors_in_a_row + 1 if result.status == "judge_error" else 0
                if errors_in_a_row >= MAX_FAILURES_IN_A_ROW:
                    failed = f"the judge failed {MAX_FAILURES_IN_A_ROW} times in a row ({result.error})"
                    raise CommandError(f"{failed}. {_advice(result.error)}")
        finally:
            for _, task in window:
                if task is not None:
                    task.cancel()
            await asyncio.gather(*(task for _, task in window if task is not None), return_exceptions=True)


async def _ask(reward: JudgedReward, row: dict[str, Any]) -> FlipResult:
    return await reward.score(_prompt_of(row), row["response"], finish_reason=row.get("finish_reason"))


def _advice(error: str | None) -> str:
    """What to do about a judge that fails, by LiteLLM's name for the failure."""
    if error and error.startswith(("AuthenticationError", "PermissionDeniedError", "litellm.AuthenticationError")):
        return "Is the server's key in HOSTED_VLLM_API_KEY (or the provider's own variable)?"
    if error and error.startswith(("NotFoundError", "litellm.NotFoundError")):
        return "Does that server have this model? Look at --judge_model and --api_base."
    return "Run the same command again when that is repaired: what is judged is kept."


def _summary(path: Path) -> tuple[Counter[str], str, str | None]:
    """Rows by status, the same as a line with the mean score, and a failed judge's last error."""
    counts: Counter[str] = Counter()
    scores, error = [], None
    with path.open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            counts[row["status"]] += 1
            scores += [row["score"]] if row["score"] is not None else []
            error = row["error"] if row["status"] == "judge_error" else error
    mean = f", mean score {sum(scores) / len(scores):.4f}" if scores else ""
    return counts, ", ".join(f"{count} {status}" for status, count in counts.most_common()) + mean, error
