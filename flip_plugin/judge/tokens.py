"""How many tokens a prompt has, as the judge's vLLM server counts them: exact, and without a tokenizer here."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

TIMEOUT_S = 5.0
# A server that could not be asked is not asked again for this long.
REST_S = 10.0


class TokenCounter:
    """Asks ``POST /tokenize`` of a vLLM server; not safe between threads."""

    def __init__(self, model: str, api_key: str | None) -> None:
        self.model = model.removeprefix("hosted_vllm/")
        self.api_key = api_key
        # The server's own, in tokens, once it has said so.
        self.window: int | None = None
        self._not_before = 0.0 if model.startswith("hosted_vllm/") else math.inf

    async def count(self, base: str, messages: Sequence[dict[str, Any]], template: Mapping[str, Any]) -> int | None:
        """Tokens of `messages` in the judge's chat template, ready for its reply; None when the server cannot say.

        `base` is the API's base URL; `template` holds ``chat_template_kwargs``. A server without the route is
        asked once.
        """
        if time.monotonic() < self._not_before:
            return None
        import aiohttp

        body = {
            "model": self.model,
            "messages": list(messages),
            "add_generation_prompt": True,
            "chat_template_kwargs": dict(template),
        }
        key = self.api_key or os.environ.get("HOSTED_VLLM_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        url = f"{base.rstrip('/').removesuffix('/v1')}/tokenize"
        try:
            limit = aiohttp.ClientTimeout(total=TIMEOUT_S)
            async with (
                aiohttp.ClientSession(timeout=limit) as session,
                session.post(url, json=body, headers=headers) as answer,
            ):
                if answer.status in (404, 405, 501):
                    self._not_before = math.inf
                if answer.status != 200:
                    return None
                reply = await answer.json(content_type=None)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
            self._not_before = max(self._not_before, time.monotonic() + REST_S)
            return None
        count, window = (reply.get(key) if isinstance(reply, dict) else None for key in ("count", "max_model_len"))
        self.window = window if isinstance(window, int) and window > 0 else None
        return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None
