"""What one judge call costs the process that makes it: bare HTTP, bare LiteLLM, this package, the published way.

    python benchmarks/reward_client.py [--quick] [--json result.json]

One local server in a process of its own answers every request after 50 ms. Each contender runs alone in a
fresh process, in turns, and the medians over the rounds are printed:

- aiohttp: a session and ``json``, nothing else: the floor
- litellm: ``litellm.acompletion`` and nothing else
- client: `JudgeClient.complete`
- reward: `FlipReward.score`: prompt, schema, call, parse, F1, echo
- reference: what the published verifier does for each call, restated in own words: load the judge's
  tokenizer, count the prompt's tokens, ``litellm.acompletion`` with three attempts, search the reply
  with regular expressions, F1 character by character. Once with a small tokenizer, once with a synthetic one
  of 151,000 entries, the size of Qwen's.

All send the same messages about a response of 900 words, with the same ``response_format``. CPU is the
process's own, all threads (``time.process_time``). A stall is the lateness of a 5 ms ticker on the caller's
event loop: `cold` from before the first import of LiteLLM to the first reply, `stall` over the measured calls.
Last come the memory of 20,000 calls, and whether this package's cost depends on the tokenizer's size.
Loopback only; nothing is left running.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import re
import statistics
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else importing LiteLLM fetches a price list

DELAY_S = 0.05
TICK_S = 0.005
SIZES = {"small": 2_000, "large": 151_000}
CONTENDERS = ("aiohttp", "litellm", "client", "reward", "reference")
TEXT = "river quiet lantern walks through seven small towns before winter and the baker keeps bread for it"
RESPONSE = ". ".join([TEXT] * 53)  # 901 words
PROMPT = "Write a story about a river that walks through seven small towns before winter, for children of ten."
REPLY = json.dumps(
    {
        "REASONING": "The text tells of a river that walks through towns, in short sentences as for children.",
        "INFERRED INSTRUCTION": "Write a short story for children about a river that walks through seven towns.",
    }
)

Call = Callable[[], Awaitable[None]]


# -- the server ------------------------------------------------------------------------------------------------


def serve() -> None:
    """Answer for ever; the first line printed is the base URL. Ends with its standard input."""
    from aiohttp import web

    message = {"role": "assistant", "content": REPLY}
    reply = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 1300, "completion_tokens": 40, "total_tokens": 1340},
    }
    body = json.dumps(reply).encode()

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(DELAY_S)
        return web.Response(body=body, content_type="application/json")

    async def main() -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await runner.cleanup()

    asyncio.run(main())


# -- the contenders: each makes a function that does one call ----------------------------------------------------


def question() -> dict[str, Any]:
    """What every contender sends: this package's own prompt about `RESPONSE`, and the JSON schema that it asks for."""
    from flip_plugin import FlipReward

    reward = FlipReward("openai/none")
    return {"messages": reward.messages(reward.find(PROMPT), RESPONSE), "response_format": reward.response_schema}


async def make_aiohttp(base: str, model: str) -> Call:
    """The floor: one session, one POST."""
    import aiohttp

    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    body = {"model": model, "max_tokens": 512, "temperature": 0.0, **question()}

    async def call() -> None:
        async with session.post(f"{base}/chat/completions", json=body) as response:
            assert (await response.json())["choices"][0]["message"]["content"] == REPLY

    return call


async def make_litellm(base: str, model: str) -> Call:
    """LiteLLM as its documentation shows it."""
    import litellm

    asked: dict[str, Any] = {"model": f"hosted_vllm/{model}", "api_base": base, "max_tokens": 512, **question()}

    async def call() -> None:
        raw: Any = await litellm.acompletion(temperature=0.0, **asked)
        assert raw.choices[0].message.content == REPLY

    return call


async def make_client(base: str, model: str) -> Call:
    """This package's client alone."""
    from flip_plugin import JudgeClient

    client = JudgeClient(f"hosted_vllm/{model}", base, max_concurrency=1024)
    asked = question()

    async def call() -> None:
        reply = await client.complete(**asked)
        assert reply.text == REPLY, reply.error

    return call


async def make_reward(base: str, model: str) -> Call:
    """This package's reward, end to end."""
    from flip_plugin import FlipReward

    reward = FlipReward(f"hosted_vllm/{model}", base, max_concurrency=1024)

    async def call() -> None:
        result = await reward.score(PROMPT, RESPONSE)
        assert result.score is not None, result.error

    return call


async def make_reference(base: str, model: str) -> Call:
    """The published verifier's steps for one call, in other words."""
    import litellm
    from transformers import AutoTokenizer

    asked: dict[str, Any] = {"model": f"hosted_vllm/{model}", "api_base": base, "max_tokens": 512, **question()}

    async def call() -> None:
        for attempt in range(3):
            try:
                tokenizer: Any = AutoTokenizer.from_pretrained(model)
                assert sum(len(tokenizer.encode(turn["content"])) for turn in asked["messages"]) < 25_000
                raw: Any = await litellm.acompletion(temperature=1.0, timeout=600, **asked)
                text = re.sub(r"<think>.*?</think>", "", raw.choices[0].message.content, flags=re.DOTALL)
                found = json.loads(re.sub(r"</?answer>", "", text).replace("\n", "\\n"))["INFERRED INSTRUCTION"]
                assert slow_f1(found, PROMPT) > 0
                return
            except RuntimeError:
                await asyncio.sleep(2**attempt)

    return call


def slow_f1(guess: str, truth: str) -> float:
    """Word F1 with the punctuation taken out character by character."""

    def words(text: str) -> list[str]:
        marks = set(string.punctuation)
        text = "".join(char for char in text.lower() if char not in marks)
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split()).split()

    ours, theirs = words(guess), words(truth)
    same = sum((collections.Counter(ours) & collections.Counter(theirs)).values())
    return 2 * same / (len(ours) + len(theirs)) if same else 0.0


# -- measuring -------------------------------------------------------------------------------------------------


class Ticker:
    """The longest lateness of a `TICK_S` timer on this loop, in seconds, since `start`."""

    def start(self) -> None:
        """Begin."""
        self.worst = 0.0
        self._task = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            due = time.perf_counter() + TICK_S
            await asyncio.sleep(TICK_S)
            self.worst = max(self.worst, time.perf_counter() - due)

    async def stop(self) -> float:
        """End; the longest lateness."""
        await asyncio.sleep(2 * TICK_S)  # a stall that is not over yet counts
        self._task.cancel()
        return self.worst


def rss_mb() -> float:
    """Resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def many(call: Call, calls: int, in_flight: int) -> list[float]:
    """`calls` calls, `in_flight` at a time; the latency of each in seconds."""
    left = iter(range(calls))
    seconds: list[float] = []

    async def lane() -> None:
        for _ in left:
            started = time.perf_counter()
            await call()
            seconds.append(time.perf_counter() - started)

    await asyncio.gather(*(lane() for _ in range(min(in_flight, calls))))
    return seconds


async def measure(name: str, base: str, model: str, calls: int, in_flight: int, sample_rss: bool) -> dict[str, Any]:
    """One contender in this process: see the module's text for what is measured."""
    ticker = Ticker()
    ticker.start()
    await asyncio.sleep(2 * TICK_S)
    call = await {
        "aiohttp": make_aiohttp,
        "litellm": make_litellm,
        "client": make_client,
        "reward": make_reward,
        "reference": make_reference,
    }[name](base, model)
    await call()
    cold = await ticker.stop()
    await many(call, min(calls // 4, 2 * in_flight), in_flight)  # connections are open, code paths warm
    ticker.start()
    started, cpu, sizes, seconds = time.perf_counter(), time.process_time(), [rss_mb()], []
    for part in range(0, calls, 1000 if sample_rss else calls):
        seconds += await many(call, min(1000, calls - part) if sample_rss else calls, in_flight)
        sizes.append(rss_mb())
    cpu, wall = time.process_time() - cpu, time.perf_counter() - started
    stall = await ticker.stop()
    ranked = sorted(seconds)
    return {
        "cpu_ms": 1000 * cpu / calls,
        "calls_s": calls / wall,
        "p50_ms": 1000 * ranked[len(ranked) // 2],
        "p99_ms": 1000 * ranked[int(0.99 * (len(ranked) - 1))],
        "stall_ms": 1000 * stall,
        "cold_ms": 1000 * cold,
        "rss_mb": sizes[-1],
        "rss_samples_mb": sizes,
    }


def write_tokenizer(folder: Path, entries: int) -> str:
    """A byte-pair tokenizer of `entries` entries that nobody trained; loads like any other."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary, merges = {letter: i for i, letter in enumerate(letters)}, []
    grown = list(letters)
    for left in grown:  # `grown` grows on: pairs, then triples
        for right in letters:
            if len(vocabulary) >= entries:
                break
            vocabulary[left + right] = len(vocabulary)
            merges.append((left, right))
            grown.append(left + right)
        if len(vocabulary) >= entries:
            break
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return str(folder)


# -- the table -------------------------------------------------------------------------------------------------


def worker(name: str, base: str, model: str, calls: int, in_flight: int, sample_rss: bool = False) -> dict[str, Any]:
    """`measure` in a fresh process. Raises RuntimeError with its error output."""
    asked = json.dumps([name, base, model, calls, in_flight, sample_rss])
    done = subprocess.run(
        [sys.executable, __file__, "--worker", asked], capture_output=True, text=True, timeout=900, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def median_of(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Figure by figure; the stalls are the worst, not the median."""
    merged = {key: statistics.median(run[key] for run in runs) for key in runs[0] if key != "rss_samples_mb"}
    merged.update({key: max(run[key] for run in runs) for key in ("stall_ms", "cold_ms")})
    return merged


def table(title: str, results: dict[str, dict[str, Any]], against: str | None = "litellm") -> None:
    """Print one table."""
    print(f"\n{title}")
    print(f"{'':22}{'CPU ms':>8}{'x':>6}{'calls/s':>9}{'p50 ms':>8}{'p99 ms':>8}{'stall':>8}{'cold':>8}{'RSS MB':>8}")
    for name, r in results.items():
        times = f"{r['cpu_ms'] / results[against]['cpu_ms']:6.2f}" if against else " " * 6
        print(
            f"{name:22}{r['cpu_ms']:8.2f}{times}{r['calls_s']:9.0f}{r['p50_ms']:8.0f}{r['p99_ms']:8.0f}"
            f"{r['stall_ms']:8.0f}{r['cold_ms']:8.0f}{r['rss_mb']:8.0f}",
            flush=True,
        )


def run(args: argparse.Namespace, base: str, folders: dict[str, str]) -> dict[str, Any]:
    """All measurements, printed as they come."""
    report: dict[str, Any] = {"calls": args.calls, "rounds": args.rounds, "in_flight": {}}
    small, large = folders["small"], folders["large"]
    for in_flight in args.in_flight:
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
        for _ in range(args.rounds):
            for name in CONTENDERS:
                runs[name].append(worker(name, base, small, args.calls, in_flight))
        results = {name: median_of(each) for name, each in runs.items()}
        results["reference, 151k"] = worker("reference", base, large, 8, in_flight)
        table(f"{in_flight} in flight, {args.calls} calls, median of {args.rounds}", results)
        report["in_flight"][in_flight] = results
    sizes = {size: [] for size in SIZES}
    for _ in range(args.rounds):
        for size in SIZES:
            sizes[size].append(worker("reward", base, folders[size], args.calls, args.in_flight[0]))
    report["reward_by_tokenizer"] = {f"reward, {size}": median_of(each) for size, each in sizes.items()}
    table("this package, judge named by a folder with a tokenizer", report["reward_by_tokenizer"], against=None)
    memory = worker("reward", base, small, args.memory_calls, args.in_flight[0], sample_rss=True)["rss_samples_mb"]
    settled = min(2, len(memory) - 1)
    report["memory"] = {"calls": args.memory_calls, "rss_mb": memory, "growth_mb": memory[-1] - memory[settled]}
    first, last = (
        f"{memory[settled]:.1f} MB after {settled},000 calls",
        f"{memory[-1]:.1f} MB after {args.memory_calls:,}",
    )
    print(f"\nmemory: {first}, {last}")
    return report


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000, help="measured calls of a contender in a round")
    parser.add_argument("--in_flight", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory_calls", type=int, default=20_000)
    parser.add_argument("--quick", action="store_true", help="400 calls, one round, 3,000 calls for the memory")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all figures here")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve()
    if args.worker:
        return print(json.dumps(asyncio.run(measure(*args.worker))))
    if args.quick:
        args.calls, args.rounds, args.memory_calls = 400, 1, 3000
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdin and server.stdout
        base = server.stdout.readline().strip()
        with tempfile.TemporaryDirectory() as root:
            folders = {size: write_tokenizer(Path(root) / size, entries) for size, entries in SIZES.items()}
            report = run(args, base, folders)
        if args.json:
            args.json.write_text(json.dumps(report, indent=1))
    finally:
        server.terminate()
        server.wait(timeout=10)


if __name__ == "__main__":
    main()
