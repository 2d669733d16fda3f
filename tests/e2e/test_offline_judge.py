"""The offline judge and a server with the same model give the same replies, word for word, for all four methods."""

import asyncio
import json
import random
from typing import Any

import pytest
from tiny_run import JUDGE

from datasets_prep.tiny_world.language.grammar import corrupt, draw_from_split, render_instruction, write_response
from flip_plugin.evals.judges.methods import make_method
from flip_plugin.evals.judges.offline import OfflineClient, OfflineEngine
from flip_plugin.evals.records.items import METHODS, EvalItem
from flip_plugin.judge.client import JudgeClient
from flip_plugin.serving.options import ServerOptions
from flip_plugin.serving.server import JudgeServer

OPTIONS = ServerOptions(str(JUDGE), on_cpu=True, max_num_seqs=64, kv_cache_memory_bytes=2**28)
TOO_LONG = [{"role": "user", "content": "a lantern and a pillow " * 2000}]


def make_items(count, responses=3):
    rng = random.Random(5)
    items = []
    for number in range(count):
        attributes = draw_from_split("eval", rng)
        texts = [write_response(corrupt(attributes, 0.6, rng), rng) for _ in range(responses)]
        items.append(EvalItem(str(number), render_instruction(attributes, rng), texts))
    return items


def asked_of(client, items):
    """Every question that the four methods put, with its reply; the judgements; an overflow; a count of tokens."""
    heard = {}
    client.record = lambda messages, reply: heard.__setitem__(json.dumps(messages), reply)

    async def ask():
        schema, plain = (
            [make_method(name, client, judge="j", seed=1, schema=schema) for name in METHODS]
            for schema in (True, False)
        )
        judged = await asyncio.gather(*(method.judge(item) for method in schema for item in items))
        replies = dict(heard)
        heard.clear()
        await asyncio.gather(*(method.judge(item) for method in plain for item in items))
        return judged, replies, dict(heard), await client.complete(TOO_LONG), await client.count_tokens(TOO_LONG[:1])

    return asyncio.run(ask())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_same_replies_from_both_paths(tmp_path):
    items = make_items(8)
    sampling: dict[str, Any] = {"temperature": 0.0, "max_tokens": 96}
    server = JudgeServer(OPTIONS, tmp_path / "server.log")
    try:
        served = asked_of(JudgeClient(f"hosted_vllm/{JUDGE}", server.wait_ready(280), **sampling), items)
    finally:
        server.stop()
    engine = OfflineEngine(OPTIONS, tmp_path / "offline.log")
    try:
        engine.start()
        offline = asked_of(OfflineClient(engine, **sampling), items)
    finally:
        engine.close()
    assert len(served[1]) == 8 * (3 + 3 + 1 + 6)
    for there, here in zip(served[1:3], offline[1:3], strict=True):
        assert there.keys() == here.keys()
        for question, reply in there.items():
            assert (reply.text, reply.finish_reason) == (here[question].text, here[question].finish_reason)
            assert {name: reply.usage[name] for name in here[question].usage} == here[question].usage
    assert [one.scores for one in served[0]] == [one.scores for one in offline[0]]
    assert any(score for one in offline[0] for score in one.scores)
    assert served[3].error_kind == offline[3].error_kind == "context_overflow"
    assert served[4] == offline[4]
