"""Random and adversarial judge replies through the parser: whether it ever raises, and how slow it gets.

    python benchmarks/parser_fuzz.py --strings 1000000 --seed 0

Most strings are small: soups of JSON's and the prompts' own pieces, and good replies that were cut, doubled
and mutilated. One in two hundred is large (1,000 to 120,000 characters) and made for quadratic behaviour: a
beginning, a short unit repeated, an end. Each goes through every parser. Time is CPU time of the thread; a
string that seems slow is measured twice more and its best counts. Prints progress and one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from flip_plugin.replies.parsing import parse_best_index, parse_better, parse_flip_reply, parse_score_reply
from flip_plugin.text.reasoning import after_thinking

LIMIT_S = 0.050
LARGE_SHARE = 1 / 200

GOOD = (
    '{"REASONING": "It counts syllables.", "INFERRED INSTRUCTION": "Write a haiku about autumn leaves"}',
    '{\n  "REASONING": "said \\"so\\" \\u00e9",\n  "INFERRED INSTRUCTION": "Do\\nthis"\n}',
    "{'REASONING': 'it's', 'INFERRED INSTRUCTION': 'Name a \"colour\"'}",
    '{"REASONING": "r", "SCORE": 7}',
    '{"REASONING": "r", "BEST_RESPONSE_INDEX": 2}',
    '{"REASONING": "r", "BETTER_RESPONSE": "A"}',
    '```json\n{"INFERRED INSTRUCTION": "x"}\n```',
    '<think>maybe {"INSTRUCTION": "draft"}</think>{"INFERRED INSTRUCTION": "final"}',
    '"{\\"INFERRED INSTRUCTION\\": \\"twice\\"}"',
)
PIECES = (
    *"{}[]()\"'`“”‘’:;,.-_/\\<>#|*!?=@0123456789eE+ \n\t\r\0",
    *(
        "{{",
        "}}",
        '"}',
        '",',
        '":',
        '": "',
        '", "',
        '"\n',
        '\\"',
        "\\\\",
        "\\u",
        "\\ud800",
        "\\u00e9",
        "{'",
        "{a:",
        '{"a":',
    ),
    *("```", "```json", "```json\n", "~~~", "//", "/*", "*/", "// x\n", "#", "<!--", "-->", "...", "|", "  ", "\n\n"),
    *("<think>", "</think>", "<THINKING>", "</thinking>", "<answer>", "</answer>", "<|channel|>final<|message|>", "<"),
    *("null", "None", "true", "False", "NaN", "Infinity", "-0", "1e999999", "1e-9", "0x1F", "9" * 25, "٣", "²", "½"),
    *("REASONING", "INFERRED INSTRUCTION", "INSTRUCTION", "SCORE", "BEST_RESPONSE_INDEX", "BETTER_RESPONSE", "key"),
    *(
        '"INFERRED INSTRUCTION": "',
        '"INSTRUCTION":',
        "instruction:",
        '"SCORE":',
        "score",
        "rating",
        "inferred ",
        "index",
    ),
    *(
        '{"INFERRED INSTRUCTION": "',
        "{'INFERRED INSTRUCTION': '",
        '{"SCORE": ',
        '{"BETTER_RESPONSE": "',
        "{INSTRUCTION: ",
    ),
    *(
        "a",
        "word ",
        "Response ",
        "A",
        "B",
        "[[A]]",
        "10/10",
        "tie",
        "1.",
        "é",
        "字",
        "İ",
        "ß",
        "\ud800",
        "\udfff",
        "\ufeff",
    ),
    *("\u200b", "\u2028", "\x85", "\x1b[0m", "😀", "\N{COMBINING ACUTE ACCENT}", "\u202e", "\x7f"),
)
LENGTHS = (1_000, 5_000, 20_000, 49_000, 100_000, 120_000)


def strings(seed: int, count: int, large_share: float = LARGE_SHARE) -> Iterator[tuple[str, str]]:
    """`count` pairs of (kind, text), the same for the same arguments."""
    rng = random.Random(seed)
    small: tuple[Callable[[random.Random], str], ...] = (soup, mutated, mutated, wrapped, characters)
    for _ in range(count):
        make = large if rng.random() < large_share else rng.choice(small)
        yield make.__name__, make(rng)


def soup(rng: random.Random) -> str:
    """Up to 40 `PIECES` in any order."""
    return "".join(rng.choices(PIECES, k=rng.randrange(40)))


def characters(rng: random.Random) -> str:
    """Any code points, lone surrogates among them; mostly of the first few thousand."""
    return "".join(chr(int(0x110000 * rng.random() ** rng.choice((1, 8)))) for _ in range(rng.randrange(60)))


def mutated(rng: random.Random) -> str:
    """A good reply that was cut, doubled or spoilt up to five times."""
    text = rng.choice(GOOD)
    for _ in range(rng.randrange(1, 6)):
        at, to = sorted((rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)))
        to = min(to, at + rng.choice((1, 3, 12, 1000)))
        text = rng.choice(
            (
                text[:at],
                text[at:],
                text[:at] + text[to:],
                text[:to] + text[at:],
                text[:at] + rng.choice(PIECES) + text[at:],
                text[:at] + rng.choice(PIECES) + text[to:],
                text[:at] + rng.choice(GOOD) + text[at:],
                text.replace(rng.choice('"{}:,\\ '), rng.choice(PIECES)),
            )
        )[:5_000]
    return text


def wrapped(rng: random.Random) -> str:
    """A reply inside something: a code fence, thinking, another object, a sentence."""
    text = mutated(rng) if rng.random() < 0.5 else rng.choice(GOOD)
    return rng.choice(
        (
            f"```json\n{text}\n```",
            f"<think>{text}</think>{text}",
            f"{text}</think>{rng.choice(GOOD)}",
            f"<think>{soup(rng)}{text}",
            f"Sure! {soup(rng)} {text} {soup(rng)}",
            f"[{text}, {text}]",
            f'{{"result": {text}}}',
            f"<answer>{text}</answer>",
            "\ufeff" + text,
            text + text,
            json.dumps(text),
            json.dumps(json.dumps(text)),
            json.dumps({"INFERRED INSTRUCTION": text}),
            json.dumps({"REASONING": text, "INFERRED INSTRUCTION": text}, ensure_ascii=False, indent=2),
            str({"REASONING": text, "INFERRED INSTRUCTION": text}),
        )
    )


def large(rng: random.Random) -> str:
    """A beginning, a unit repeated to one of `LENGTHS`, an end: what quadratic code chokes on."""
    start = rng.choice((*GOOD, *PIECES, "", ""))
    start = start[: rng.randrange(len(start) + 1)] if rng.random() < 0.7 else start
    unit = "".join(rng.choices(PIECES, k=rng.choice((1, 1, 2, 2, 3, 4, 8)))) if rng.random() < 0.8 else mutated(rng)
    unit = unit or "{"
    end = rng.choice((*GOOD, *PIECES, "", "", "}", '"}', "x"))
    body = unit * (rng.choice(LENGTHS) // len(unit) + 1)
    if rng.random() < 0.3:
        body += "".join(rng.choices(PIECES, k=3)) * rng.randrange(1, 5_000)
    return (start + body)[: LENGTHS[-1]] + end


def check(text: str) -> None:
    """Raises AssertionError where a result is neither a value nor a problem, or not what it promises."""
    reply = parse_flip_reply(text)
    assert (reply.instruction is None) == (reply.problem is not None), reply
    assert reply.instruction is None or reply.instruction.strip() == reply.instruction != "", reply
    score = parse_score_reply(text)
    assert (score.score is None) == (score.problem is not None), score
    assert score.score is None or 1 <= score.score <= 10, score
    for choice, most in ((parse_best_index(text, 4), 3), (parse_better(text), 1)):
        assert (choice.index is None) == (choice.problem is not None), choice
        assert choice.index is None or 0 <= choice.index <= most, choice
    for found in (reply, score, choice):
        assert found.reasoning is None or isinstance(found.reasoning, str), found
        assert found.problem is None or len(found.problem) < 200, found


PARSERS: tuple[Callable[[str], Any], ...] = (
    parse_flip_reply,
    parse_score_reply,
    lambda text: parse_best_index(text, 4),
    parse_better,
    after_thinking,
)


def slowest(text: str, limit: float = LIMIT_S) -> float:
    """Seconds of CPU that the slowest parser takes for `text`; the best of three where it is above `limit`."""

    def once(parse: Callable[[str], Any]) -> float:
        started = time.thread_time()
        parse(text)
        return time.thread_time() - started

    worst = 0.0
    for parse in PARSERS:
        seconds = once(parse)
        if seconds > limit:
            seconds = min(seconds, once(parse), once(parse))
        worst = max(worst, seconds)
    return worst


def main() -> int:
    """The command line; see the module's docstring. 1 where the parser raised or was slow."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--strings", type=int, default=1_000_000)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--large_share", type=float, default=LARGE_SHARE)
    chosen = arguments.parse_args()
    started, worst, worst_text, raised, too_slow = time.monotonic(), 0.0, "", 0, 0
    kinds: dict[str, int] = {}
    read = {"instruction": 0, "longest": 0}
    for number, (kind, text) in enumerate(strings(chosen.seed, chosen.strings, chosen.large_share), start=1):
        kinds[kind] = kinds.get(kind, 0) + 1
        try:
            check(text)
            seconds = slowest(text)
        except Exception as error:  # noqa: BLE001 - that any is raised at all is what is looked for
            raised += 1
            print(f"RAISED {type(error).__name__}: {str(error)[:200]} for {text[:300]!r}", file=sys.stderr)
            continue
        read["instruction"] += parse_flip_reply(text).instruction is not None if len(text) < 5_000 else 0
        read["longest"] = max(read["longest"], len(text))
        if seconds > worst:
            worst, worst_text = seconds, text
        if seconds > LIMIT_S:
            too_slow += 1
            print(f"SLOW {1000 * seconds:.0f} ms, {len(text)} characters: {text[:200]!r}", file=sys.stderr)
        if number % 50_000 == 0:
            minutes = (time.monotonic() - started) / 60
            print(f"{number} strings, slowest {1000 * worst:.1f} ms, {minutes:.1f} min", file=sys.stderr)
    summary = {
        **{"strings": chosen.strings, "seed": chosen.seed, "kinds": kinds, "longest_characters": read["longest"]},
        **{"instructions_read": read["instruction"], "raised": raised, "slower_than_50_ms": too_slow},
        "slowest_ms": round(1000 * worst, 2),
        "slowest": {"characters": len(worst_text), "beginning": worst_text[:120]},
        "minutes": round((time.monotonic() - started) / 60, 2),
    }
    print(json.dumps(summary))
    return 1 if raised or too_slow else 0


if __name__ == "__main__":
    sys.exit(main())
