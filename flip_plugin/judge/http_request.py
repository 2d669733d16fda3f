"""One HTTP request to a judge, through LiteLLM: its body, its headers, its time, and how it ended.

Everything that is sent to a judge leaves through `send`. An HTTP header that a gateway wants is added there, as
``extra_headers`` of `acompletion`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from flip_plugin.judge.errors import Failure, classify
from flip_plugin.judge.litellm_setup import import_litellm, unlogged
from flip_plugin.judge.reply import JudgeReply, read_reply

# Of a question's first request LiteLLM's own time-out comes first, and says what it waited for; ours ends all others.
GRACE_S = 0.1


async def send(
    body: Mapping[str, Any], url: str | None, *, api_key: str | None, timeout: float, deadline: float
) -> JudgeReply | Failure:
    """Send `body` (model, messages, sampling) to the server at `url`, or where LiteLLM chooses; does not raise.

    `timeout` is that of the whole question, in seconds; `deadline` is when this request has to be over, on the
    monotonic clock.
    """
    from openai import OpenAIError

    litellm, began = import_litellm(), time.monotonic()
    left = max(deadline - began, 0.001)
    try:
        # LiteLLM's own timeout is per read; a server that trickles would outlive it. And it must be the same for
        # all calls: older LiteLLMs keep a client, with its connections, for each value that they have seen.
        async with asyncio.timeout(left + GRACE_S):
            with unlogged():
                raw = await litellm.acompletion(
                    **body,
                    api_base=url,
                    api_key=api_key,
                    timeout=timeout,
                    # Retries are ours: `flip_plugin.judge.retries`.
                    num_retries=0,
                    max_retries=0,
                    drop_params=True,
                )
    # What LiteLLM raises derives from OpenAI's error, whatever the server did.
    except (OpenAIError, TimeoutError, OSError) as error:
        return classify(error, timeout=timeout, keys=[api_key])
    return read_reply(raw, time.monotonic() - began, url)


def sendable(turn: dict[str, Any]) -> dict[str, Any]:
    """The message without lone surrogates, which no HTTP body can hold."""
    content = turn.get("content")
    if not isinstance(content, str) or content.isascii():
        return dict(turn)
    return {**turn, "content": content.encode("utf-8", "replace").decode("utf-8")}
