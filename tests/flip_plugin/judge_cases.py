"""A client with little patience, and a question for it."""

from typing import Any

from flip_plugin.judge.client import JudgeClient

ASK = [{"role": "user", "content": "hello"}]


def client(base, **given):
    options: dict[str, Any] = {"timeout": 5, "max_attempts": 3, **given}
    return JudgeClient("hosted_vllm/m", base, **options)
