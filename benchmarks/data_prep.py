"""How fast conversations become a training set, and in how much memory.

    python benchmarks/data_prep.py --rows 1000000 --workers 2 --output DIR

Generates conversations in WildChat-1M's exact schema as Parquet (kept in DIR/data for the next time) and measures
`datasets_prep.wildchat` on them: once for 12,000 prompts, once for all that there are. Texts are made of words
that follow Zipf's law, with lengths and shares like WildChat's: languages (45% not English), toxic and
redacted rows, copies, and near-copies that differ in a few words. The tokenizer is a byte-level BPE of 32,000 tokens,
trained on such texts, unless another one is given. Prints JSON: rows a second, seconds of each stage and of CPU
time, peak memory of all processes together (proportional set size, so shared pages count once), and what was found
of what was planted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

VOCABULARY = 60_000
SHARES = {"foreign": 0.45, "toxic": 0.10, "redacted": 0.05, "copy": 0.08, "near_copy": 0.05}
SHARDS = 14  # as many as WildChat-1M has
CHUNK = 5_000
MEDIAN_WORDS, SPREAD = 22, 1.1
REPLY_WORDS = 80

_CATEGORIES = ("harassment", "hate", "self-harm", "sexual", "violence")
_DETOXIFY = ("identity_attack", "insult", "obscene", "severe_toxicity", "sexual_explicit", "threat", "toxicity")


def schema() -> pa.Schema:
    """WildChat-1M's columns and types; of the moderations' many categories some."""
    text, flag, when = pa.string(), pa.bool_(), pa.timestamp("us", tz="UTC")
    header = pa.struct([("accept-language", text), ("user-agent", text)])
    turn = pa.struct(
        [
            ("content", text),
            ("country", text),
            ("hashed_ip", text),
            ("header", header),
            ("language", text),
            ("redacted", flag),
            ("role", text),
            ("state", text),
            ("timestamp", when),
            ("toxic", flag),
            ("turn_identifier", pa.int64()),
        ]
    )
    moderation = pa.struct(
        [
            ("categories", pa.struct([(name, flag) for name in _CATEGORIES])),
            ("category_scores", pa.struct([(name, pa.float64()) for name in _CATEGORIES])),
            ("flagged", flag),
        ]
    )
    detoxify = pa.struct([(name, pa.float64()) for name in _DETOXIFY])
    return pa.schema(
        [
            ("conversation_hash", text),
            ("model", text),
            ("timestamp", when),
            ("conversation", pa.list_(turn)),
            ("turn", pa.int64()),
            ("language", text),
            ("openai_moderation", pa.list_(moderation)),
            ("detoxify_moderation", pa.list_(detoxify)),
            ("toxic", flag),
            ("redacted", flag),
            ("state", text),
            ("country", text),
            ("hashed_ip", text),
            ("header", header),
        ]
    )


class Writer:
    """Texts of words by Zipf's law, from a seed."""

    def __init__(self, seed: int, language: int = 0) -> None:
        self.random = np.random.default_rng([seed, language])
        maker = np.random.default_rng([7, language])  # one vocabulary for all shards
        parts = np.array(["ba", "ce", "di", "fo", "gu", "han", "jel", "kir", "lom", "mun", "par", "ser", "tin", "vo"])
        lengths = maker.integers(1, 5, VOCABULARY)
        drawn = maker.choice(parts, (VOCABULARY, 4)).tolist()
        self.words = np.array(["".join(word[:n]) for word, n in zip(drawn, lengths, strict=True)], dtype=object)
        weights = 1 / np.arange(3, VOCABULARY + 3)
        # Each word as often as its share says: a draw is then one place of this table.
        ranks = np.searchsorted(np.cumsum(weights / weights.sum()), (np.arange(2**20) + 0.5) / 2**20)
        self._table = np.minimum(ranks, VOCABULARY - 1).astype(np.int32)

    def texts(self, lengths: np.ndarray) -> list[str]:
        """A text for each number of words."""
        words = self.words[self._table[self.random.integers(0, len(self._table), int(lengths.sum()), np.int32)]]
        ends = np.cumsum(lengths)
        return [" ".join(words[end - n : end]) for n, end in zip(lengths, ends, strict=True)]

    def prompts(self, number: int) -> list[str]:
        """Texts with a prompt's lengths: half below `MEDIAN_WORDS`, a few of thousands."""
        lengths = np.exp(self.random.normal(np.log(MEDIAN_WORDS), SPREAD, number)).astype(int).clip(1, 3000)
        return [text.capitalize() for text in self.texts(lengths)]

    def near_copy(self, text: str) -> str:
        """The text with its last word, and one in 60 others, replaced."""
        words = text.split()
        words[-1] = "otherwise"
        for place in self.random.integers(0, len(words), len(words) // 60):
            words[place] = str(self.random.choice(self.words[:1000]))
        return " ".join(words)


def chunk(writer: Writer, foreign: Writer, pool: list[str], first: int) -> tuple[pa.Table, dict[str, int]]:
    """`CHUNK` conversations and how many of them are copies; `pool` is what copies are made of."""
    random = writer.random
    is_foreign = random.random(CHUNK) < SHARES["foreign"]
    prompts, others = writer.prompts(CHUNK), iter(foreign.prompts(int(is_foreign.sum())))
    kind = random.random(CHUNK)
    planted = {"copies": 0, "near_copies": 0}
    for place in range(CHUNK):
        if is_foreign[place]:
            prompts[place] = next(others)
        elif kind[place] < SHARES["copy"]:
            prompts[place] = pool[int(random.integers(len(pool)))]
            planted["copies"] += 1
        elif kind[place] < SHARES["copy"] + SHARES["near_copy"]:
            prompts[place] = writer.near_copy(pool[int(random.integers(len(pool)))])
            planted["near_copies"] += 1
    turns = random.integers(1, 4, CHUNK)
    replies = iter(writer.texts(random.integers(REPLY_WORDS // 4, 2 * REPLY_WORDS, int(turns.sum()))))
    further = iter(writer.prompts(int((turns - 1).sum())))
    contents = []
    for prompt, number in zip(prompts, turns, strict=True):
        contents += [prompt, next(replies)]
        for _ in range(number - 1):
            contents += [next(further), next(replies)]
    toxic, redacted = random.random(CHUNK) < SHARES["toxic"], random.random(CHUNK) < SHARES["redacted"]
    return table_of(contents, turns, is_foreign, toxic, redacted, first), planted


def table_of(
    contents: list[str], turns: np.ndarray, is_foreign: np.ndarray, toxic: np.ndarray, redacted: np.ndarray, first: int
) -> pa.Table:
    """The rows' columns from their texts (all turns of all rows) and labels."""
    kinds = schema()
    number = first + np.arange(len(turns))
    language = np.where(is_foreign, "Chinese", "English")
    header = {"accept-language": "en-US,en;q=0.9", "user-agent": "Mozilla/5.0 (X11; Linux x86_64)"}
    row: dict[str, Any] = {
        "conversation_hash": [f"{n:032x}" for n in number],
        "model": "gpt-3.5-turbo-0301",
        "timestamp": number,
        "turn": turns,
        "language": language,
        "toxic": toxic,
        "redacted": redacted,
        "state": "Texas",
        "country": "United States",
        "hashed_ip": [f"{n:064x}" for n in number],
        "header": header,
    }
    # Of every row: each of its labels once for each of its turns.
    times = 2 * turns
    said: dict[str, Any] = {
        "content": contents,
        "role": ["user", "assistant"] * int(turns.sum()),
        "turn_identifier": number,
    }
    said |= {
        name: row[name]
        for name in ("country", "hashed_ip", "header", "language", "redacted", "state", "timestamp", "toxic")
    }
    score = dict.fromkeys(_CATEGORIES, 0.001)
    verdict = {"categories": dict.fromkeys(_CATEGORIES, False), "category_scores": score, "flagged": False}
    offsets = pa.array(np.concatenate([[0], np.cumsum(times)]), pa.int32())

    def column(value: Any, kind: pa.DataType, size: int) -> pa.Array:
        if isinstance(value, dict | str):
            return pa.repeat(pa.scalar(value, kind), size)
        found = pa.array(value, kind) if len(value) == size else pa.array(np.repeat(np.array(value), times), kind)
        return found

    def per_turn(kind: pa.DataType, values: pa.Array) -> pa.Array:
        return pa.ListArray.from_arrays(offsets, values, type=kind)

    turn = kinds.field("conversation").type.value_type
    flat = [column(said[field.name], field.type, len(contents)) for field in turn]
    found = {name: column(value, kinds.field(name).type, len(turns)) for name, value in row.items()}
    found["conversation"] = per_turn(
        kinds.field("conversation").type, pa.StructArray.from_arrays(flat, fields=list(turn))
    )
    for name, value in (("openai_moderation", verdict), ("detoxify_moderation", dict.fromkeys(_DETOXIFY, 0.01))):
        kind = kinds.field(name).type
        found[name] = per_turn(kind, column(value, kind.value_type, len(contents)))
    return pa.table([found[field.name] for field in kinds], schema=kinds)


def make_shard(path: Path, shard: int, rows: int, seed: int) -> dict[str, int]:
    """One Parquet file, whole or not there. Copies are of the first texts of every shard, so they cross shards."""
    writer, foreign = Writer(seed * 1000 + shard), Writer(seed * 1000 + shard, language=1)
    pool = Writer(seed).prompts(2 * CHUNK)
    planted = {"copies": 0, "near_copies": 0}
    temporary = path.with_suffix(".part")
    with pq.ParquetWriter(temporary, schema(), compression="zstd", compression_level=1) as file:
        for first in range(0, rows, CHUNK):
            table, found = chunk(writer, foreign, pool, shard * 10_000_000 + first)
            file.write_table(table.slice(0, min(CHUNK, rows - first)), row_group_size=1000)
            planted = {name: planted[name] + found[name] for name in planted}
    temporary.replace(path)
    return planted


def make_data(folder: Path, rows: int, seed: int, workers: int) -> dict[str, Any]:
    """All shards; those that are there already stay."""
    folder.mkdir(parents=True, exist_ok=True)
    note = folder.parent / f"{folder.name}.json"
    if note.exists():
        return json.loads(note.read_text())
    sizes = [rows // SHARDS + (shard < rows % SHARDS) for shard in range(SHARDS)]
    paths = [folder / f"train-{shard:05d}-of-{SHARDS:05d}.parquet" for shard in range(SHARDS)]
    started = time.monotonic()
    with ProcessPoolExecutor(workers) as pool:
        tasks = [pool.submit(make_shard, *task, seed) for task in zip(paths, range(SHARDS), sizes, strict=True)]
        found = [task.result() for task in tqdm(tasks, "generating", unit="shard")]
    facts = {
        "rows": rows,
        "seconds": round(time.monotonic() - started, 1),
        "planted": {name: sum(one[name] for one in found) for name in found[0]},
        "bytes": sum(path.stat().st_size for path in paths),
    }
    note.write_text(json.dumps(facts))
    return facts


def train_tokenizer(path: Path, seed: int) -> Path:
    """A byte-level BPE of 32,000 tokens on 30,000 of such prompts."""
    from tokenizers import ByteLevelBPETokenizer

    if not path.exists():
        trained = ByteLevelBPETokenizer()
        trained.train_from_iterator(Writer(seed).prompts(30_000), vocab_size=32_000, show_progress=False)
        trained.save(str(path))
    return path


class Memory:
    """Peak of the memory of a process and all its descendants, sampled."""

    def __init__(self, pid: int) -> None:
        self.pid, self.peak = pid, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """End; the peak in MiB."""
        self._stop.set()
        self._thread.join()
        return self.peak / 1024

    def _watch(self) -> None:
        while not self._stop.wait(0.25):
            self.peak = max(self.peak, sum(map(_memory_of, _family(self.pid))))


def _family(pid: int) -> list[int]:
    try:
        tasks = [task.name for task in Path(f"/proc/{pid}/task").iterdir()]
        children = " ".join(Path(f"/proc/{pid}/task/{task}/children").read_text() for task in tasks).split()
    except OSError:  # it ended meanwhile
        return []
    return [pid, *(one for child in children for one in _family(int(child)))]


def _memory_of(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def _cpu_of_children() -> float:
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def measure(data: Path, tokenizer: Path, output: Path, prompts: str, args: argparse.Namespace) -> dict[str, Any]:
    """One run of the command in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "datasets_prep.wildchat",
        "--judge_type",
        "flip",
        "--num_prompts",
        prompts,
        "--data",
        str(data),
        "--tokenizer",
        str(tokenizer),
        "--output",
        str(output),
        "--workers",
        str(args.workers),
        "--keep_work",
        "--overwrite",
        *args.options,
    ]
    started, used = time.monotonic(), _cpu_of_children()
    process = subprocess.Popen(command)
    memory = Memory(process.pid)
    filtered = None
    while process.poll() is None:
        time.sleep(0.1)
        # The rows' file begins when the last unit is there.
        if filtered is None and any(output.glob(".train.*")):
            filtered = time.monotonic() - started
    seconds = time.monotonic() - started
    if process.returncode:
        raise SystemExit(f"the command failed: {' '.join(command)}")
    card = json.loads((output / "card.json").read_text())
    return {
        "num_prompts": prompts,
        "seconds": round(seconds, 1),
        "filtering_s": round(filtered or seconds, 1),
        "cpu_s": round(_cpu_of_children() - used, 1),
        "rows_a_second": round(card["read"] / seconds),
        "peak_MiB": round(memory.stop()),
        "rows": card["rows"],
        "left_out": {step["filter"]: step["left_out"] for step in card["steps"] if step["left_out"]},
    }


def main(argv: list[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_prompts", nargs="+", default=["12000", "all"], help="a run for each")
    parser.add_argument("--tokenizer", type=Path, help="folder or tokenizer.json (default: one that is trained here)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("options", nargs="*", help="after --: further flags for datasets_prep.wildchat")
    args = parser.parse_args(argv)
    data = args.output / f"data-{args.rows}-{args.seed}"
    facts = make_data(data, args.rows, args.seed, args.workers)
    tokenizer = args.tokenizer or train_tokenizer(args.output / "tokenizer.json", args.seed)
    runs = []
    for number, prompts in enumerate(args.num_prompts):
        folder = args.output / f"run-{args.rows}-{number}"
        shutil.rmtree(folder, ignore_errors=True)  # a run must not find an earlier one's work
        runs.append(measure(data, tokenizer, folder, prompts, args))
        print(json.dumps(runs[-1]), flush=True)
    found = {"data": facts, "workers": args.workers, "runs": runs}
    (args.output / "data_prep.json").write_text(json.dumps(found, indent=1))
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
