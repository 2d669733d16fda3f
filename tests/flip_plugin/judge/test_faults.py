"""A judge that misbehaves, seen from the reward: every row comes out once, in order, and no failure is a 0."""

import gc
import json
import re
import socket
import threading
import time
import tracemalloc
from collections import Counter
from typing import Any

import pytest

from flip_plugin import FlipReward
from flip_plugin.cli import main

WHOLE = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
MESSAGE = {"role": "assistant", "content": '{"REASONING": "r", "INFERRED INSTRUCTION": "Tell a joke"}'}
CHOICE = {"index": 0, "finish_reason": "stop", "message": MESSAGE}
BODY = json.dumps({**WHOLE, "choices": [CHOICE]}).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\nConnection: close\r\n\r\n"
ATTEMPTS = 3
FINE = MESSAGE["content"]

# fault: (what the server answers, the last for ever; status; requests)
FAULTS: dict[str, tuple[list[Any], str, int]] = {
    "fine": ([FINE], "ok", 1),
    "reset": ([{"wire": b"", "then": "reset"}], "judge_error", ATTEMPTS),
    "reset once": ([{"wire": HEAD + BODY[:40], "then": "reset"}, FINE], "ok", 2),
    "closed": ([{"wire": b""}], "judge_error", ATTEMPTS),
    "too slow": ([{"text": FINE, "delay": 30}], "judge_error", 1),
    "trickle": ([{"wire": HEAD + b" " * 400, "then": 0.05}], "judge_error", 1),
    "429 once": ([(429, "later", {"Retry-After": "1"}), FINE], "ok", 2),
    "429": ([(429, "later")], "judge_error", ATTEMPTS),
    "503 once": ([(503, "starting"), FINE], "ok", 2),
    "500": ([(500, "boom")], "judge_error", ATTEMPTS),
    "500 once": ([(500, "boom"), FINE], "ok", 2),
    "400": ([(400, "no")], "judge_error", 1),
    "401": ([(401, "who")], "judge_error", 1),
    "404": ([(404, "no such model")], "judge_error", 1),
    "413": ([(413, "too large")], "judge_error", 1),
    "too long": ([(400, "maximum context length is 9 tokens"), FINE], "ok", 2),
    "truncated body": ([{"wire": HEAD + BODY[:40]}], "judge_error", ATTEMPTS),
    "html": ([{"garbage": "<html>busy</html>"}], "judge_error", ATTEMPTS),
    "empty body": ([{"garbage": ""}], "judge_error", ATTEMPTS),
    "wrong json": ([{"json": [1]}], "judge_error", ATTEMPTS),
    "wrong shape": ([{"json": {**WHOLE, "choices": [{"index": 0}]}}], "judge_error", ATTEMPTS),
    "error with 200": ([{"json": {"error": {"message": "boom", "code": 500}}}], "judge_error", ATTEMPTS),
    "empty choices": ([{"json": {**WHOLE, "choices": []}}], "unparsed", 1),
    "none content": ([{"text": None}], "unparsed", 1),
    "empty content": ([{"text": ""}], "unparsed", 1),
    "length": ([{"text": FINE, "finish_reason": "length"}], "unparsed", 1),
    "no json": ([{"text": "I cannot say."}], "unparsed", 1),
}
# LiteLLM itself sends again, once, when a connection is reset before the first byte.
SENT_AGAIN = {"reset"}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr("flip_plugin.judge.retries.FIRST_PAUSE_S", 0.01)


class Misbehaving:
    """Picks the fault by what the response says, and counts the requests of every row."""

    def __init__(self, stub):
        self.requests = Counter()
        self._lock = threading.Lock()
        stub.handler = self.answer

    def answer(self, body):
        row, fault = re.search(r"row (\d+): ([\w ]+)!", json.dumps(body["messages"])).groups()
        with self._lock:
            answers = FAULTS[fault][0]
            answer = answers[min(self.requests[row], len(answers) - 1)]
            self.requests[row] += 1
        return answer


def rows(times: int) -> list[tuple[str, str]]:
    """(fault, response), every fault `times` times, interleaved."""
    faults = list(FAULTS) * times
    return [(fault, f"Here is row {number}: {fault}! " + "It goes on. " * 40) for number, fault in enumerate(faults)]


def check(results: list[dict[str, Any]], asked: list[tuple[str, str]], requests: Counter) -> None:
    assert len(results) == len(asked)
    for number, (result, (fault, _)) in enumerate(zip(results, asked, strict=True)):
        _, status, sent = FAULTS[fault]
        assert result["status"] == status, (fault, result)
        assert result["score"] == (1.0 if status == "ok" else None), fault
        assert bool(result["error"]) == (status != "ok"), fault
        most = 2 * sent if fault in SENT_AGAIN else sent
        assert sent <= requests[str(number)] <= most, fault


@pytest.fixture
def refused():
    with socket.socket() as keeper:
        keeper.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{keeper.getsockname()[1]}/v1"


@pytest.mark.parametrize("replicas", [1, 2])
def test_every_fault_in_a_batch(judge, refused, replicas):
    server, asked = Misbehaving(judge), rows(2)
    bases = [judge.base, refused][:replicas]
    reward = FlipReward("hosted_vllm/m", bases, timeout=4, max_attempts=ATTEMPTS)
    results = reward.score_batch(["Tell a joke"] * len(asked), [response for _, response in asked])
    check([result.to_dict() for result in results], asked, server.requests)
    stats = reward.client.stats()
    assert stats["in_flight"] == 0
    assert stats["ok"] == sum(status in ("ok", "unparsed") for _, status, _ in (FAULTS[fault] for fault, _ in asked))


def test_every_fault_through_the_command_line(judge, tmp_path, capsys):
    server, asked = Misbehaving(judge), rows(1)
    source, target = tmp_path / "rows.jsonl", tmp_path / "scored.jsonl"
    lines = [json.dumps({"id": i, "prompt": "Tell a joke", "response": r}) for i, (_, r) in enumerate(asked)]
    source.write_text("\n".join(lines))
    command = ["score", "--input", str(source), "--output", str(target), "--judge_model", "hosted_vllm/m"]
    assert main([*command, "--api_base", judge.base, "--timeout", "4"]) == 0
    results = [json.loads(line) for line in target.read_text().splitlines()]
    assert [result["id"] for result in results] == list(range(len(asked)))
    for result, (fault, _) in zip(results, asked, strict=True):
        assert result["status"] == FAULTS[fault][1], fault
        assert result["score"] == (1.0 if result["status"] == "ok" else None), fault
    assert all(server.requests[str(n)] == 1 for n, (fault, _) in enumerate(asked) if fault in ("400", "401", "404"))


def test_a_replica_that_dies_and_returns_loses_no_reward(two_judges):
    steady, mortal = two_judges
    for stub in two_judges:
        stub.answers = [{"text": FINE, "delay": 0.02}]
    reward = FlipReward("hosted_vllm/m", [steady.base, mortal.base], timeout=20, max_concurrency=8)
    reward.score_batch(["Tell a joke"], ["warm"])

    def fate():
        while len(mortal.requests) < 20:
            time.sleep(0.005)
        mortal.die()
        time.sleep(0.3)
        mortal.revive()

    thread = threading.Thread(target=fate)
    thread.start()
    results = reward.score_batch(["Tell a joke"] * 400, [f"joke {i}" for i in range(400)])
    thread.join()
    assert [result.score for result in results] == [1.0] * 400
    stats = reward.client.stats()["replicas"][mortal.base]
    assert stats["error_connection"] >= 1, "it did die under way"
    before = len(mortal.requests)
    deadline = time.monotonic() + 15
    while len(mortal.requests) < before + 10 and time.monotonic() < deadline:
        assert all(r.score == 1.0 for r in reward.score_batch(["Tell a joke"] * 16, ["joke"] * 16))
    assert len(mortal.requests) >= before + 10, "it gets traffic again"


def test_memory_is_flat_over_many_calls(judge):
    judge.answers = [FINE]
    reward = FlipReward("hosted_vllm/m", judge.base, max_concurrency=16)
    response = "a joke of some length " * 50

    def score(times: int) -> int:
        for _ in range(times):
            reward.score_batch(["Tell a joke"] * 100, [response] * 100)
            judge.requests.clear()
            judge.headers.clear()
        gc.collect()  # what waits in cycles is not kept
        return tracemalloc.get_traced_memory()[0]

    score(1)
    tracemalloc.start(1)
    try:
        settled = score(2)
        grown = score(4) - settled
    finally:
        tracemalloc.stop()
    # The deques of latencies grow to 10,000 entries of two numbers; a kept response would be 1,000 bytes.
    assert grown / 400 < 300, f"{grown / 400:.0f} bytes a call stay behind"
