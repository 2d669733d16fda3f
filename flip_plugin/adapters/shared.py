"""What the adapters have in common: a row's target, one `FlipReward` a process, a count of missing scores.

TRL takes a missing score; verl and OpenRLHF need a number in its place, which is
``FLIP_MISSING_SCORE`` there, and each such row is flagged and counted. Options come
from the caller first and from ``FLIP_*`` variables next (`flip_plugin.reward.environment_variables`).

What a process shares (rewards, counts) stands in this module and nowhere else: trainers
load adapters by path and send their functions to workers, where module state would
come along as a copy.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from flip_plugin.prompts.target import NoTarget, Target, normalize_messages, target_of_row
from flip_plugin.reward.environment_variables import missing_score, options_from_env
from flip_plugin.reward.flip import FlipReward
from flip_plugin.reward.result import FlipResult

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_rewards: dict[str, FlipReward] = {}
_missing: Counter[str] = Counter()


def configured_reward(options: Mapping[str, Any] | None = None) -> FlipReward:
    """This process's reward for `options` over the ``FLIP_*`` variables; made once for each set of them.

    `options` are `FlipReward`'s keywords with values that JSON can hold (those of
    OmegaConf count). Raises ValueError without a judge model, for a variable or option
    that cannot be read, and TypeError for an option that does not exist.
    """
    merged = {**options_from_env(), **{name: _plain(value) for name, value in (options or {}).items()}}
    if not merged.get("judge_model"):
        raise ValueError(
            "no judge model: set FLIP_JUDGE_MODEL, or give the option judge_model, "
            "for example to hosted_vllm/Qwen/Qwen3-4B"
        )
    try:
        # A forked child gets its own: connections do not survive a fork.
        key = f"{os.getpid()} {json.dumps(merged, sort_keys=True)}"
    except TypeError as error:
        raise ValueError(f"options must be text, numbers, true or false, lists or mappings: {error}") from None
    with _lock:
        if key not in _rewards:
            _rewards[key] = FlipReward(**merged)
        return _rewards[key]


def score_of_missing(value: Any = None) -> float:
    """`value`, or else ``FLIP_MISSING_SCORE``: what stands for a missing score. Raises ValueError if not finite."""
    if value is None:
        return missing_score()
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"missing_score={value!r} is not a finite number: it would spoil its whole group")
    return number


def is_due(count: int) -> bool:
    """True for 1, 2, 4, 8, ...: which of many equal events to warn of, loud but no flood."""
    return count & (count - 1) == 0


def note_missing(result: FlipResult, trainer: str) -> None:
    """Count a result without a score; warn of it when `is_due`."""
    with _lock:
        _missing[result.status] += 1
        total = _missing.total()
    if is_due(total):
        text = "%s: %d FLIP scores missing in this process so far; now %s: %s"
        logger.warning(text, trainer, total, result.status, result.error)


def missing_counts() -> dict[str, int]:
    """Results without a score in this process, by status."""
    with _lock:
        return dict(_missing)


def row_prompt(ground_truth: Any, messages: Any) -> Target | Sequence[Any] | None:
    """What a response is judged against: a `Target`, messages for `find_target`, or None for neither.

    A `ground_truth` with text is the instruction, and `messages` give its context (`target_of_row`).
    Without one, `messages` decide. Does not raise.
    """
    turns = _plain(messages)
    if not isinstance(turns, list) or not turns:
        turns = None
    if not isinstance(ground_truth, str) or not ground_truth.strip():
        return turns
    return target_of_row(ground_truth, turns) if turns else Target(ground_truth.strip())


def response_text(completion: Any) -> str:
    """The text of a completion: itself, or that of its last message if that is the assistant's; "" if neither."""
    if isinstance(completion, str):
        return completion
    try:
        last = normalize_messages(_plain(completion))[-1]
    except NoTarget:
        return ""
    return last["content"] if last["role"] == "assistant" else ""


def _plain(value: Any) -> Any:
    """`value` with lists and dicts for what only behaves so: arrays of Parquet rows, OmegaConf's containers."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_plain(item) for item in value]
    return value
