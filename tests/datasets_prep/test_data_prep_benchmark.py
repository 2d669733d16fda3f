"""The generated conversations of benchmarks/data_prep.py: WildChat's schema, and the shares that are planted."""

import json
import os
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from prep_cases import TINY_TOKENIZER

from datasets_prep.prepare import main

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import data_prep

    monkeypatch.setattr(data_prep, "CHUNK", 400)
    monkeypatch.setattr(data_prep, "VOCABULARY", 5000)
    yield data_prep
    sys.modules.pop("data_prep", None)


def test_what_is_planted_in_generated_rows_is_found(benchmark, tmp_path):
    files = [tmp_path / f"{shard}.parquet" for shard in range(2)]
    planted = [benchmark.make_shard(file, shard, 1100, seed=0) for shard, file in enumerate(files)]
    assert [pq.read_metadata(file).num_rows for file in files] == [1100, 1100]
    first = pq.read_table(files[0]).slice(3, 1).to_pylist()[0]
    roles = [turn["role"] for turn in first["conversation"]]
    assert roles == ["user", "assistant"] * first["turn"] and len(first["detoxify_moderation"]) == len(roles)
    assert {turn["language"] for turn in first["conversation"]} == {first["language"]}
    argv = ["--judge_type", "flip", "--tokenizer", TINY_TOKENIZER, "--data", *map(str, files), "--workers", "1"]
    assert main([*argv, "--output", str(tmp_path / "out"), "--num_prompts", "all"], source="wildchat") == 0
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    out = {step["filter"]: step["left_out"] for step in card["steps"]}
    assert 0.40 < out["language"] / 2200 < 0.50 and 0.06 < out["toxic"] / (2200 - out["language"]) < 0.14
    assert 0 < out["exact_duplicates"] <= sum(one["copies"] for one in planted)
    assert out["near_duplicates"] > 0


def test_memory_counts_a_process_and_its_children(benchmark):
    assert os.getpid() in benchmark._family(os.getpid())
    memory = benchmark.Memory(os.getpid())
    while not memory.peak:
        time.sleep(0.05)
    assert 30 < memory.stop() < 4000
