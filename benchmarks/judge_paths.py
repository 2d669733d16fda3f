"""Judged responses a second: a vLLM server over HTTP, and vLLM in a child process (`evals.judges.offline`).

    python benchmarks/judge_paths.py [--responses 1000] [--rounds 3] [--model PATH] [--json result.json]

Both paths get the same model, engine options, responses and sampling (temperature 0.7, a seed), on one machine in one
run. They take turns, each round a fresh engine, since two would share the cores; loading is not in the figures and
is reported apart. A round warms up with a tenth of the responses. The responses are the tiny world's, judged by FLIP
and pointwise, half each; nothing is cached. `same` is the share of greedy replies that are the same on both paths.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from datasets_prep.tiny_world.language.grammar import corrupt, draw_from_split, render_instruction, write_response
from flip_plugin.evals.judges.offline import OfflineClient, OfflineEngine, offline_options
from flip_plugin.judge.client import JudgeClient
from flip_plugin.reward.flip import FlipReward
from flip_plugin.reward.pointwise import PointwiseJudge
from flip_plugin.serving.options import ServerOptions
from flip_plugin.serving.server import JudgeServer

ROOT = Path(__file__).resolve().parents[1]
JUDGE = ROOT / "datasets_prep" / "tiny_world" / "models" / "judge"
# Calls in flight: the server's default in `flip eval`, more of them, and what the offline judge takes.
WIDTHS = {"server": (64, 256), "offline": (1024,)}
MAX_TOKENS = 96

Maker = Callable[..., JudgeClient]


def make_pairs(count: int) -> list[tuple[str, str]]:
    """(instruction, response), responses of mixed quality."""
    rng = random.Random("judge_paths")
    pairs = []
    for _ in range(count):
        attributes = draw_from_split("eval", rng)
        pairs.append((render_instruction(attributes, rng), write_response(corrupt(attributes, 0.6, rng), rng)))
    return pairs


@contextmanager
def served(options: ServerOptions, folder: Path) -> Generator[tuple[Maker, float]]:
    """(maker of clients, seconds to load) of a server."""
    begun = time.monotonic()
    server = JudgeServer(options, folder / "server.log")
    try:
        url = server.wait_ready(600)
        yield lambda **sampling: JudgeClient(f"hosted_vllm/{options.model}", url, **sampling), time.monotonic() - begun
    finally:
        server.stop()


@contextmanager
def offline(options: ServerOptions, folder: Path) -> Generator[tuple[Maker, float]]:
    """The same of an engine in a child process."""
    begun = time.monotonic()
    engine = OfflineEngine(options, folder / "offline.log")
    try:
        engine.start()
        yield lambda **sampling: OfflineClient(engine, **sampling), time.monotonic() - begun
    finally:
        engine.close()


def judge_all(client: JudgeClient, pairs: list[tuple[str, str]]) -> float:
    """Seconds for FLIP on one half and pointwise on the other, all at once."""
    rewards = [FlipReward("", client=client), PointwiseJudge("", client=client)]

    async def all_of_them() -> None:
        await asyncio.gather(*(rewards[i % 2].score(prompt, text) for i, (prompt, text) in enumerate(pairs)))

    begun = time.monotonic()
    asyncio.run(all_of_them())
    return time.monotonic() - begun


def cpu_seconds() -> float:
    """Of this process and all of its children."""
    here = psutil.Process()
    total = 0.0
    for process in (here, *here.children(recursive=True)):
        try:
            total += sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return total


def measure(make: Maker, widths: tuple[int, ...], pairs: list[tuple[str, str]]) -> dict[int, dict[str, float]]:
    """By calls in flight: judged responses a second, CPU milliseconds a response (client and engine together)."""
    found = {}
    judge_all(
        make(temperature=0.7, max_tokens=MAX_TOKENS, seed=0, max_concurrency=widths[0]), pairs[: len(pairs) // 10]
    )
    for width in widths:
        client = make(temperature=0.7, max_tokens=MAX_TOKENS, seed=1, max_concurrency=width)
        before = cpu_seconds()
        seconds = judge_all(client, pairs)
        spent = cpu_seconds() - before
        stats = client.stats()
        if stats["ok"] != len(pairs):
            raise SystemExit(f"only {stats['ok']} of {len(pairs)} judge calls went well: {stats}")
        found[width] = {
            "responses_per_s": len(pairs) / seconds,
            "tokens_per_s": stats["completion_tokens"] / seconds,
            "cpu_ms_per_response": 1000 * spent / len(pairs),
        }
    return found


def greedy(make: Maker, pairs: list[tuple[str, str]]) -> list[str | None]:
    """The replies to FLIP's question at temperature 0."""
    client = make(temperature=0.0, max_tokens=MAX_TOKENS)
    reward = FlipReward("", client=client)

    async def all_of_them() -> list[str | None]:
        asked = [reward.messages(reward.find(prompt), text) for prompt, text in pairs]
        replies = await asyncio.gather(*(client.complete(one, response_format=reward.response_schema) for one in asked))
        return [reply.text for reply in replies]

    return asyncio.run(all_of_them())


def main() -> None:
    """The command line; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--responses", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default=str(JUDGE), help="with ?options as for vllm: judges")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    options = offline_options(args.model)
    if options.on_cpu:
        options = replace(options, kv_cache_memory_bytes=2**28, omp_threads=1)
    pairs = make_pairs(args.responses)
    rounds: dict[str, list[dict[str, Any]]] = {"server": [], "offline": []}
    replies: dict[str, list[str | None]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.rounds):
            for name, open_path in (("server", served), ("offline", offline)):
                with open_path(options, Path(folder)) as (make, loading):
                    figures = measure(make, WIDTHS[name], pairs)
                    if number == 0:
                        replies[name] = greedy(make, pairs[:200])
                rounds[name].append({"loading_s": loading, **{str(width): one for width, one in figures.items()}})
                print(f"round {number + 1}, {name}: {json.dumps(rounds[name][-1])}", file=sys.stderr, flush=True)
    same = [one == other for one, other in zip(replies["server"], replies["offline"], strict=True)]
    result: dict[str, Any] = {
        "responses": args.responses,
        "model": args.model,
        "max_num_seqs": options.max_num_seqs,
        "machine": {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()},
        "same": sum(same) / len(same),
        "rounds": rounds,
    }
    for name, widths in WIDTHS.items():
        result[f"{name} loading_s"] = statistics.median(one["loading_s"] for one in rounds[name])
        for width in widths:
            for figure in ("responses_per_s", "cpu_ms_per_response"):
                key = f"{name}@{width} {figure}"
                result[key] = round(statistics.median(one[str(width)][figure] for one in rounds[name]), 2)
                print(f"{key}: {result[key]:.2f}")
    print(f"the same greedy replies: {100 * result['same']:.1f}% of {len(same)}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
