"""How fast `f1_score` is beside a character-by-character restatement of the published one.

    python benchmarks/f1_speed.py --rounds 15 --pairs 100000

First both score `--pairs` random pairs of short texts, built from what a normaliser can trip over, and
have to agree exactly. Then both score 2,000-word texts: windows of the reference manual that comes with
Python, as they are in ASCII, with typographic quotes, and with Cyrillic letters.
`fresh` gives every pair two texts never seen before. `group of 8` scores eight new guesses for each new
target, as GRPO does; ours then counts the target's words once, and seven times finds them in its cache.
The two take turns, in random order; a figure is the median over the rounds, in CPU time.
Prints a table and one JSON object.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import re
import statistics
import string
import sys
import time
from collections import Counter
from collections.abc import Callable
from pydoc_data.topics import topics

from flip_plugin.text.similarity import f1_score

WORDS = 2_000
GROUP = 8
PIECES = [
    *("a", "an", "the", "A", "The", "AN", "poem", "Sea", "write", "2+2", "state-of-the-art", "_a_", "__the__"),
    *("a’s", "“the", "the”", "…an…", "—a—", "a’the’an", "’", "“”", "!", "''", "don't", "İ", "ß", "ΟΔΟΣ", "e\u0301"),
    *("写一首诗", "写。", "शब्द", "한국어", "🙂", "a🙂the", "\u00a0", "\u2028", "\x1c", "\x00", "a\x00an", "\u200b"),
    *("\ud800", "the\udfff", "\udc00a"),
]


def restated_normaliser(text: str) -> str:
    """What is published: lower case, a look at every character, articles, white space."""
    without_punctuation = "".join(char for char in text.lower() if char not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", without_punctuation).split())


def restated(prediction: str, reference: str) -> float:
    """SQuAD's F1 over `restated_normaliser`."""
    guess, truth = restated_normaliser(prediction).split(), restated_normaliser(reference).split()
    overlap = sum((Counter(guess) & Counter(truth)).values())
    if not overlap:
        return 0.0
    precision, recall = overlap / len(guess), overlap / len(truth)
    return 2 * precision * recall / (precision + recall)


def ours(prediction: str, reference: str) -> float:
    """The library's F1."""
    return f1_score(prediction, reference)["f1"]


def random_text(rng: random.Random) -> str:
    """Some `PIECES`, often with characters of any kind."""
    pieces = rng.choices(PIECES, k=rng.randrange(12))
    if rng.random() < 0.5:  # any character at all, whatever it is
        pieces.append("".join(chr(rng.randrange(0x110000)) for _ in range(3)))
        pieces.append("".join(chr(rng.randrange(0x250)) for _ in range(6)))
    rng.shuffle(pieces)
    return rng.choice((" ", " ", " ", "", "\n")).join(pieces)


def count_differences(pairs: int, rng: random.Random) -> int:
    """Pairs on which the two differ; each differing one is shown on stderr."""
    differing = 0
    for _ in range(pairs):
        one, other = random_text(rng), random_text(rng)
        if rng.random() < 0.5:  # pairs that share much
            other = one[: len(one) // 2] + other
        if ours(one, other) != restated(one, other):
            differing += 1
            print(f"differ: {one!r} {other!r}", file=sys.stderr)
    return differing


def sources() -> dict[str, list[str]]:
    """{kind of text: its words}."""
    ascii_text = " ".join(topics[name] for name in sorted(topics)).encode("ascii", "ignore").decode()
    curly = re.sub(r'"([^"\n]+)"', r"“\1”", ascii_text).replace("'", "’").replace("--", "—")
    letters = {ord(char): ord(char) + 0x3D0 for char in string.ascii_letters}
    return {
        "English, ASCII": ascii_text.split(),
        "English, curly quotes": curly.split(),
        "Cyrillic letters": ascii_text.translate(letters).split(),
    }


def new_text(words: list[str], rng: random.Random) -> str:
    """A window of `WORDS` words that was never seen before."""
    start = rng.randrange(len(words) - WORDS)
    # A serial number in front: windows may start at the same word, texts must never be the same.
    return f"{rng.getrandbits(60)} " + " ".join(words[start : start + WORDS - 1])


def measure(words: list[str], guesses: int, rounds: int, rng: random.Random) -> dict[str, float]:
    """Median milliseconds of CPU time a pair for both, with `guesses` predictions for each target."""
    functions: dict[str, Callable[[str, str], float]] = {"restated": restated, "ours": ours}
    spent: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        targets = [new_text(words, rng) for _ in range(16 // guesses)]
        pairs = [(new_text(words, rng), target) for target in targets for _ in range(guesses)]
        for name in rng.sample(list(functions), 2):
            start = time.process_time()
            for prediction, reference in pairs:
                functions[name](prediction, reference)
            spent[name].append((time.process_time() - start) / len(pairs))
    restated_ms, ours_ms = (1000 * statistics.median(spent[name]) for name in ("restated", "ours"))
    return {"restated_ms": restated_ms, "ours_ms": ours_ms, "times_as_fast": restated_ms / ours_ms}


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    differing = count_differences(args.pairs, rng)
    print(f"{args.pairs} random pairs, {differing} scored differently")
    print(f"{'2,000-word texts':24}{'targets':>12}{'restated':>12}{'ours':>12}{'':>10}")
    results = {}
    for kind, words in sources().items():
        for name, guesses in (("fresh", 1), (f"group of {GROUP}", GROUP)):
            figures = results[f"{kind}; {name}"] = measure(words, guesses, args.rounds, rng)
            restated_ms, ours_ms, ratio = figures.values()
            print(f"{kind:24}{name:>12}{restated_ms:9.2f} ms{ours_ms:9.2f} ms{ratio:9.1f}x")
    print(json.dumps({"pairs": args.pairs, "differing": differing, "python": platform.python_version(), **results}))
    sys.exit(differing > 0)


if __name__ == "__main__":
    main()
