"""``flip rescore``: recorded judge calls scored again under another similarity or echo policy, without a judge."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flip_plugin.files.atomic import replaced_path
from flip_plugin.files.jsonl import as_line, open_for_append
from flip_plugin.judge.call_log import read_calls
from flip_plugin.reward.rescore import rescore
from flip_plugin.text.echo import ECHO_POLICIES
from flip_plugin.text.similarity import Similarity, get_similarity

DESCRIPTION = """\
Score recorded judge calls again, without a judge. The calls are what --record_calls_to
kept, or the judge_calls folder of a training run.

  flip rescore --input output/tiny_flip/judge_calls --output rouge.jsonl --similarity rouge_l
  flip rescore --input calls --output penalised.jsonl --flip_echo penalise

The policy `strip` changes what the judge reads, so it can be neither added nor removed here.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``flip rescore``."""
    parser.add_argument("--input", required=True, help="a file or folder of judge calls")
    parser.add_argument("--output", required=True, type=Path, help="a line for each call: its score before and now")
    parser.add_argument("--similarity", default="f1", help="f1, unicode_f1, rouge_l or embedding:MODEL (default: f1)")
    parser.add_argument(
        "--flip_echo",
        "--echo",
        dest="echo",
        choices=ECHO_POLICIES,
        help="(default: the policy that each call was made under)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the new scores and print both means. Raises ValueError for calls that cannot be scored again so."""
    similarity = get_similarity(args.similarity)
    source, output = Path(args.input).resolve(), args.output.resolve()
    if source in (output, output.parent):
        raise ValueError(f"--output {args.output} would overwrite the recorded calls, or mix with them: name another")
    with replaced_path(args.output) as unfinished:
        before, after, others = _rescored(args, similarity, unfinished)
    print(f"recorded: {_mean(before)}\n{args.similarity}: {_mean(after)}")
    if others:
        print(f"{others} calls of other judge types left out", file=sys.stderr)
    return 0


def _rescored(args: argparse.Namespace, similarity: Similarity, path: Path) -> tuple[list[float], list[float], int]:
    """The scores before and now, written to `path` by call, and how many calls were no FLIP's."""
    from tqdm import tqdm

    before, after, others = [], [], 0
    with open_for_append(path) as file:
        for call in tqdm(read_calls(args.input), unit="call", desc="rescored", delay=2):
            if call["judge_type"] != "flip":
                others += 1
                continue
            try:
                new = rescore(call, similarity, args.echo)
            except ValueError as error:
                raise ValueError(f"call {call['id']}: {error}") from error
            before += [call["score"]] if call["score"] is not None else []
            after += [new["score"]] if new["score"] is not None else []
            row = {"id": call["id"], "target": call["target"], "score_before": call["score"], **new}
            file.write(as_line(row))
    return before, after, others


def _mean(scores: list[float]) -> str:
    return f"mean {sum(scores) / len(scores):.4f} over {len(scores)} scores" if scores else "no scores"
