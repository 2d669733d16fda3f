"""`JudgeReply`: what came back from a judge, or why nothing did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class JudgeReply:
    """What came back. `text` is None when `error` is set, or when the judge sent no content.

    `usage` counts tokens (``prompt_tokens``, ``completion_tokens``, and ``reasoning_tokens``
    where the server says so); `seconds` runs from the first request to the end;
    `attempts` is the number of requests sent.
    """

    text: str | None = None
    finish_reason: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    attempts: int = 0
    api_base: str | None = None
    cached: bool = False
    error: str | None = None
    error_kind: str | None = None


def read_reply(raw: Any, seconds: float, url: str | None) -> JudgeReply:
    """LiteLLM's response as a `JudgeReply`; it may have no choice and no content."""
    choice = raw.choices[0] if raw.choices else None
    spent = getattr(raw, "usage", None)
    usage = {name: _tokens(spent, name) for name in ("prompt_tokens", "completion_tokens")} if spent else {}
    reasoning = _tokens(getattr(spent, "completion_tokens_details", None), "reasoning_tokens")
    return JudgeReply(
        text=choice.message.content if choice else None,
        finish_reason=choice.finish_reason if choice else None,
        usage={**usage, "reasoning_tokens": reasoning} if reasoning else usage,
        seconds=seconds,
        api_base=url,
    )


def _tokens(usage: Any, name: str) -> int:
    return max(getattr(usage, name, 0) or 0, 0)
