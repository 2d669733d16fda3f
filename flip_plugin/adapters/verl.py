"""FLIP as a custom reward function of verl (written against verl 0.9.1).

    reward.custom_reward_function.path=pkg://flip_plugin.adapters.verl
    reward.custom_reward_function.name=compute_score

verl cannot take a missing score: it becomes the option `missing_score` (else
``FLIP_MISSING_SCORE``, else 0.0), with ``flip_missing`` 1. See docs/verl.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flip_plugin.adapters.shared import configured_reward, note_missing, row_prompt, score_of_missing
from flip_plugin.judge.event_loop import run_sync
from flip_plugin.reward.result import FlipResult


async def compute_score(
    data_source: Any,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    missing_score: float | None = None,
    reward_router_address: str | None = None,
    reward_model_tokenizer: Any = None,
    **options: Any,
) -> dict[str, Any]:
    """One response's score, as verl's reward managers await it. `options` are `FlipReward`'s keywords.

    `ground_truth` is the instruction to be recovered. ``extra_info["messages"]`` (or
    ``"prompt"``, if it is a list) may hold the prompt's messages: the context comes from
    them, and the instruction, too, if `ground_truth` is empty. Where verl serves a reward
    model, its router is the judge's server unless `api_base` is given. The keys are the
    same for every row, as verl needs; None is a value that its metrics leave out.

    Raises ValueError or TypeError for options that are wrong, never for a row.
    """
    if reward_router_address and not options.get("api_base"):
        options["api_base"] = f"http://{reward_router_address}/v1"
    reward = configured_reward(options)
    stand_in = score_of_missing(missing_score)
    prompt = row_prompt(ground_truth, _messages(extra_info))
    if prompt is None:
        error = f"data_source {data_source!r}: ground_truth must hold the exact instruction to be recovered"
        result = FlipResult(status="no_target", error=error)
    else:
        result = await reward.score(prompt, solution_str)
    if result.score is None:
        note_missing(result, "verl")
    return _fields(result, stand_in)


def compute_score_sync(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """`compute_score`, blocking: for the reward manager ``remote``, which runs plain functions only."""
    return run_sync(compute_score(*args, **kwargs))


def _messages(extra_info: Mapping[str, Any] | None) -> Any:
    if not isinstance(extra_info, Mapping):
        return None
    messages = extra_info.get("messages")
    return extra_info.get("prompt") if messages is None else messages


def _fields(result: FlipResult, stand_in: float) -> dict[str, Any]:
    missing = result.score is None
    return {
        "score": stand_in if missing else result.score,
        "flip_score": result.score,
        "flip_missing": int(missing),
        "flip_echo": result.echo,
        "flip_status": result.status,
        "flip_inferred_instruction": result.inferred_instruction or "",
        "flip_error": result.error or "",
    }
