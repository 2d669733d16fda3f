"""``flip inspect``: judge calls in the terminal, the words that decide the score coloured."""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from flip_plugin.judge.call_log import read_calls
from flip_plugin.reward.result import STATUSES
from flip_plugin.text.echo import echo_spans
from flip_plugin.text.word_marks import Piece, shared_words

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

SHARED, ONLY_HERE, ECHOED, LABEL = "bold green", "red", "yellow", "dim"
# Characters of a shown text without --full.
SHOWN = 600
BARS = 40
INDENT = 12
# C0 and C1 but tab and newline, and what turns the direction of writing.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

DESCRIPTION = """\
Read recorded judge calls: what --record_calls_to kept, or the judge_calls folder of a run.
Words that the inferred and the real instruction share are green, the others red; what the
response repeats of its instruction is yellow. `--summary` counts instead of showing.

  flip inspect output/tiny_flip/judge_calls --sort score         # the worst first
  flip inspect calls --status unparsed --full                    # what the judge answered instead
  flip inspect calls --sort -echo --limit 3                      # who restates the prompt?
  flip inspect calls --summary

Without a terminal, or with NO_COLOR set, the text is plain.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``flip inspect``."""
    parser.add_argument("input", help="a file or folder of judge calls")
    parser.add_argument("--status", choices=STATUSES, help="only calls with this status")
    parser.add_argument("--judge_type", help="only calls of this type: flip, quality, listwise, pairwise")
    parser.add_argument(
        "--contains", help="only calls with this text in target, reply or request; upper and lower case are the same"
    )
    parser.add_argument("--id", help="only the call whose id begins with this")
    parser.add_argument(
        "--sort",
        choices=("score", "-score", "echo", "-echo", "seconds", "-seconds"),
        help="lowest first; with a minus, highest first; calls without the value come last",
    )
    parser.add_argument("--limit", type=_count, default=10, help="calls to show (default: 10)")
    parser.add_argument("--full", action="store_true", help="whole texts, and the judge's reply as it came")
    parser.add_argument("--summary", action="store_true", help="counts, scores, tokens and times of the chosen calls")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not 0 or more")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Print the chosen calls, or their summary."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    chosen = _sorted(list(_chosen(args)), args.sort)
    if args.summary:
        _print_summary(console, chosen)
        return 0
    for call in chosen[: args.limit]:
        _print_call(console, call, None if args.full else SHOWN)
    print(f"{min(args.limit, len(chosen))} of {len(chosen)} calls", file=sys.stderr)
    return 0


def _chosen(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    wanted = (args.contains or "").casefold()
    for call in read_calls(args.input):
        if args.status not in (None, call["status"]) or args.judge_type not in (None, call["judge_type"]):
            continue
        if args.id and not str(call["id"]).startswith(args.id):
            continue
        if wanted and wanted not in f"{call['target']}\n{call['reply']}\n{call['messages']}".casefold():
            continue
        yield call


def _sorted(calls: list[dict[str, Any]], sort: str | None) -> list[dict[str, Any]]:
    if not sort:
        return calls
    key = sort.lstrip("-")
    known = [call for call in calls if call[key] is not None]
    known.sort(key=lambda call: call[key], reverse=sort.startswith("-"))
    return known + [call for call in calls if call[key] is None]


def _print_call(console: Console, call: dict[str, Any], longest: int | None) -> None:
    from rich.text import Text

    target, inferred = _visible(call["target"]), _visible(call["inferred_instruction"])
    inferred_words, target_words = shared_words(inferred, target)
    score = "none" if call["score"] is None else f"{call['score']:.3f}"
    echo = "" if call["echo"] is None else f"  echo {call['echo']:.2f}"
    tokens = "+".join(str(count) for name, count in (call["usage"] or {}).items() if name.endswith("_tokens"))
    head = f"{call['status']}  score {score}{echo}  {call['seconds']:.2f} s  {tokens or 'no'} tokens  {call['model']}"
    console.print(Text.assemble(("── ", LABEL), (head, "bold"), (f"  {str(call['id'])[:8]}", LABEL)))
    request = _visible(call["messages"][-1]["content"] if call["messages"] else "")
    shown: list[tuple[str, Text]] = [
        ("target", _coloured(target_words) if inferred else Text(target)),
        ("inferred", _coloured(inferred_words)),
        ("reasoning", Text(_visible(call["reasoning"]))),
        ("error", Text(_visible(call["error"]), style=ONLY_HERE)),
        ("asked", _echo_coloured(target, request)),
    ]
    if longest is None or call["status"] == "unparsed":
        shown.append(("reply", Text(_visible(call["reply"]))))
    for name, text in shown:
        if text.plain:
            lines = _short(text, longest).split("\n")
            console.print(Text.assemble((f"{name:>{INDENT - 2}}: ", LABEL), Text("\n" + " " * INDENT).join(lines)))
    console.print()


def _visible(text: str | None) -> str:
    """`text` with control characters shown instead of sent: a response must not steer the reader's terminal."""
    return CONTROL.sub(lambda match: f"\\u{ord(match.group()):04x}", text or "")


def _coloured(pieces: Sequence[Piece]) -> Text:
    from rich.text import Text

    styles = {True: SHARED, False: ONLY_HERE, None: ""}
    return Text.assemble(*((piece, styles[shared]) for piece, shared in pieces))


def _echo_coloured(target: str, request: str) -> Text:
    from rich.text import Text

    text = Text(request)
    for start, end in echo_spans(target, request):
        text.stylize(ECHOED, start, end)
    return text


def _short(text: Text, longest: int | None) -> Text:
    from rich.text import Text

    if longest is None or len(text) <= longest:
        return text
    half = longest // 2
    gap = (f" [... {len(text) - 2 * half} characters ...] ", LABEL)
    return Text.assemble(text[:half], gap, text[len(text) - half :])


def _print_summary(console: Console, calls: list[dict[str, Any]]) -> None:
    statuses = Counter(call["status"] for call in calls)
    for status, count in statuses.most_common():
        console.print(f"{status:>17} {count:8d}  {count / len(calls):6.1%}")
    for judge_type in sorted({call["judge_type"] for call in calls if call["judge_type"]}):
        of_type = [call for call in calls if call["judge_type"] == judge_type]
        scores = sorted(call["score"] for call in of_type if call["score"] is not None)
        if scores:
            console.print(f"\n{judge_type} scores: {_spread(scores)}")
            _print_histogram(console, scores)
    echoes = sorted(call["echo"] for call in calls if call["echo"] is not None)
    if echoes:
        console.print(f"echo: {_spread(echoes)}; {sum(e > 0.5 for e in echoes)} calls above 0.5")
    sent = [call for call in calls if call["attempts"]]
    if sent:
        seconds = sorted(call["seconds"] for call in sent)
        console.print(f"seconds a call: {_spread(seconds)}; {sum(call['attempts'] - 1 for call in sent)} retries")
        for name in ("prompt_tokens", "completion_tokens"):
            counts = [call["usage"].get(name, 0) for call in sent if call["usage"]]
            if counts:
                console.print(f"{name}: {sum(counts)} in all, {sum(counts) / len(counts):.1f} a call")
    print(f"{len(calls)} calls", file=sys.stderr)


def _spread(ranked: list[float]) -> str:
    at = [ranked[min(int(share * len(ranked)), len(ranked) - 1)] for share in (0.1, 0.5, 0.9)]
    return f"mean {sum(ranked) / len(ranked):.3f}, p10 {at[0]:.3f}, p50 {at[1]:.3f}, p90 {at[2]:.3f} (n={len(ranked)})"


def _print_histogram(console: Console, scores: list[float]) -> None:
    counts = Counter(min(int(score * 10), 9) for score in scores)
    most = max(counts.values())
    for tenth in range(10):
        bar = "█" * round(BARS * counts[tenth] / most)
        console.print(f"  {tenth / 10:.1f}-{(tenth + 1) / 10:.1f} {counts[tenth]:8d} {bar}")
