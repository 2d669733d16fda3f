"""FLIP as a reward function of OpenRLHF (written against OpenRLHF 0.11.2).

Give this file's path, or that of a file of your own that makes a `reward_func`, to
``--reward.remote_url``, and the column with the instruction to ``--data.label_key``.
OpenRLHF cannot take a missing score: it becomes ``FLIP_MISSING_SCORE`` (default 0.0),
with ``flip_missing`` 1 in its logs. See docs/openrlhf.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from flip_plugin.adapters.shared import configured_reward, note_missing, row_prompt, score_of_missing
from flip_plugin.judge.event_loop import run_sync
from flip_plugin.reward.flip import FlipReward
from flip_plugin.reward.result import FlipResult
from flip_plugin.text.reasoning import opens_thinking, with_opening

# What ends a response in the text that OpenRLHF decodes, special tokens included.
END_TOKENS = (
    *("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>", "<|end|>", "<|return|>"),
    *("</s>", "<eos>", "<end_of_turn>", "<｜end▁of▁sentence｜>", "<|END_OF_TURN_TOKEN|>"),
)
# Fewer characters in common are no proof that a query goes on where a prompt ends.
LEAST_OVERLAP = 16


def reward_func(queries: list[str], prompts: list[str], labels: list[Any]) -> dict[str, Any]:
    """OpenRLHF's call, configured by ``FLIP_*`` variables; see `OpenRLHFReward`."""
    return OpenRLHFReward(configured_reward())(queries, prompts, labels)


def flip_reward_func(
    judge_model: str,
    api_base: str | list[str] | None = None,
    *,
    missing_score: float | None = None,
    end_tokens: Sequence[str] = END_TOKENS,
    **options: Any,
) -> OpenRLHFReward:
    """A `reward_func` with `FlipReward`'s keywords as options, for a file of your own."""
    return OpenRLHFReward(FlipReward(judge_model, api_base, **options), missing_score, end_tokens)


class OpenRLHFReward:
    """A callable with OpenRLHF's signature. Blocks its thread (OpenRLHF gives it one), never a loop; pickles."""

    def __init__(
        self, reward: FlipReward, missing_score: float | None = None, end_tokens: Sequence[str] = END_TOKENS
    ) -> None:
        self.reward = reward
        self.stand_in = score_of_missing(missing_score)
        self.end_tokens = tuple(end_tokens)

    def __call__(self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]) -> dict[str, Any]:
        """``rewards`` and ``scores`` (float32 tensors of shape (rows,)) and ``extra_logs``, one value a row.

        A query is the prompt and the response as one text. A label is the instruction, or
        the prompt's messages. Does not raise for a row: OpenRLHF would go on without a reward.
        """
        import torch

        async def all_of_them() -> list[FlipResult]:
            rows = zip(queries, prompts, labels, strict=True)
            return await asyncio.gather(*(self._score(*row) for row in rows))

        results = run_sync(all_of_them())
        for result in results:
            if result.score is None:
                note_missing(result, "OpenRLHF")
        rewards = torch.tensor([self.stand_in if r.score is None else r.score for r in results])
        # Numbers only, the same names for every row: what OpenRLHF can put in a batch.
        logs = {
            "flip_missing": torch.tensor([float(r.score is None) for r in results]),
            "flip_echo": torch.tensor([r.echo or 0.0 for r in results]),
        }
        return {"rewards": rewards, "scores": rewards.clone(), "extra_logs": logs}

    async def _score(self, query: str, prompt: str, label: Any) -> FlipResult:
        target = row_prompt(label, None if isinstance(label, str) else label)
        if target is None:
            error = "the label is empty: --data.label_key must name the column with the exact instruction"
            return FlipResult(status="no_target", error=error)
        response = split_response(query, prompt)
        if response is None:
            error = f"cannot tell the response: the query does not go on from its prompt (query {query[:80]!r})"
            return FlipResult(status="no_target", error=error)
        text, ended = self._without_end(response)
        judged = with_opening(text) if opens_thinking(prompt) else text
        return await self.reward.score(target, judged, finish_reason="stop" if ended else None)

    def _without_end(self, response: str) -> tuple[str, bool]:
        text, ended = response.rstrip(), False
        while end := next((token for token in self.end_tokens if text.endswith(token)), None):
            text, ended = text[: -len(end)].rstrip(), True
        return text, ended


def split_response(query: str, prompt: str) -> str | None:
    """What follows `prompt` in `query`; None when `query` does not go on from it.

    The query is decoded from tokens, so white space may differ from the prompt's. Of a
    prompt that was too long, OpenRLHF keeps the end; then the longest end of the
    prompt that the query begins with counts.

    >>> split_response("user: Hi assistant: Hello", "user: Hi assistant:")
    ' Hello'
    """
    at = _after(query, prompt)
    if at is not None:
        return query[at:]
    query = query.lstrip("\ufffd")  # half a character, where the cut went through one
    overlap = _overlap(prompt, query[: len(prompt)])
    return query[overlap:] if overlap >= LEAST_OVERLAP else None


def _after(query: str, prompt: str) -> int | None:
    """Where `query` goes on after all of `prompt`, white space aside; None if it does not begin with it."""
    if query.startswith(prompt):
        return len(prompt)
    at = 0
    for char in prompt:
        if char.isspace():
            continue
        while at < len(query) and query[at].isspace():
            at += 1
        if at == len(query) or query[at] != char:
            return None
        at += 1
    return at


def _overlap(prompt: str, query: str) -> int:
    """Length of the longest end of `prompt` that is a beginning of `query`; linear in both (Knuth-Morris-Pratt)."""
    borders = [0] * len(query)
    for i in range(1, len(query)):
        k = borders[i - 1]
        while k and query[i] != query[k]:
            k = borders[k - 1]
        borders[i] = k + (query[i] == query[k])
    matched = 0
    for char in prompt if query else "":
        while matched and (matched == len(query) or char != query[matched]):
            matched = borders[matched - 1]
        matched += char == query[matched]
    return matched


# OpenRLHF loads this file under this name and swallows what reward_func raises; here it still listens.
if __name__ == "reward_func":
    configured_reward()
    score_of_missing()
