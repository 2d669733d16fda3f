"""LiteLLM does no work that nobody wants."""

import time

import pytest
from judge_cases import ASK, client

from flip_plugin.judge.client import JudgeClient
from flip_plugin.judge.event_loop import run_sync
from flip_plugin.judge.litellm_setup import import_litellm

pytestmark = pytest.mark.usefixtures("short_pauses")


def test_calls_are_logged_only_for_listeners(judge, monkeypatch):
    import litellm

    heard = []
    ask = client(judge.base)
    assert run_sync(ask.complete(ASK)).error is None

    async def listen(kwargs, response, start, end):
        heard.append(kwargs["model"])

    monkeypatch.setattr(litellm, "success_callback", [listen])
    monkeypatch.setattr(litellm, "_async_success_callback", [])
    assert run_sync(ask.complete(ASK)).error is None
    deadline = time.monotonic() + 5
    while not heard and time.monotonic() < deadline:
        time.sleep(0.02)
    assert heard == ["m"]


def test_a_hosted_judge_is_free_of_charge(judge):
    litellm = import_litellm()
    litellm.register_model({"hosted_vllm/dear": {"litellm_provider": "hosted_vllm", "input_cost_per_token": 2.0}})
    for name in ("hosted_vllm/dear", "hosted_vllm/tmp/a folder"):
        assert run_sync(JudgeClient(name, judge.base, timeout=5).complete(ASK)).error is None
    assert litellm.model_cost["hosted_vllm/tmp/a folder"]["input_cost_per_token"] == 0
    assert litellm.model_cost["hosted_vllm/dear"]["input_cost_per_token"] == 2
