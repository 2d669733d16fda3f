"""What becomes of a verifiers' reward: format reward, overlong punishment, penalty for not stopping. Pure.

In this order: the format reward is combined with what the verifiers gave, the overlong punishment is added,
and last the non-stop penalty takes the place of it all. A missing reward stays missing, except where the
result does not depend on it. What is logged for each verifier is its own score, whatever happens here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from flip_plugin.text.reasoning import ANSWER_CLOSE, ANSWER_OPEN, CLOSE_TAG

#: Status of a sample whose reward is the non-stop penalty; its verifiers are not asked.
NOT_STOPPED = "not_stopped"

_FORM = re.compile(rf"{CLOSE_TAG}\s*{ANSWER_OPEN}")


class Shaped(NamedTuple):
    """`reward` as the advantages see it (None: missing); the parts are None where they are off."""

    reward: float | None
    format_reward: float | None = None
    overlong: float | None = None


@dataclass(frozen=True)
class RewardShaping:
    """The flags of the same names; see `open_instruct.config.flags`."""

    apply_verifiable_reward: bool = True
    apply_r1_style_format_reward: bool = False
    r1_style_format_reward: float = 1.0
    additive_format_reward: bool = False
    non_stop_penalty: bool = False
    non_stop_penalty_value: float = 0.0
    overlong_buffer_length: int = 0
    overlong_penalty: float = 1.0

    @classmethod
    def from_args(cls, args: Any) -> Self:
        """The flags' values, by name."""
        return cls(**{name: getattr(args, name) for name in cls.__dataclass_fields__})

    def penalised(self, finish_reason: str) -> bool:
        """True where the reward is the non-stop penalty, whatever the verifiers would say."""
        return self.non_stop_penalty and finish_reason != "stop"

    def shape(
        self, verified: float | None, *, response: str, finish_reason: str, num_tokens: int, max_tokens: int
    ) -> Shaped:
        """The reward of a response of `num_tokens`, at most `max_tokens`, for which the verifiers gave `verified`.

        `verified` is in units of the reward (so x verification_reward), None where a score is missing, and
        ignored without `apply_verifiable_reward`.
        """
        if self.penalised(finish_reason):
            return Shaped(self.non_stop_penalty_value)
        kept = follows_r1_format(response) if self.apply_r1_style_format_reward else None
        formatted = None if kept is None else self.r1_style_format_reward * kept
        reward = self._combined(verified, kept, formatted or 0.0)
        if not self.overlong_buffer_length:
            return Shaped(reward, formatted)
        overlong = self.overlong_penalty * soft_overlong(num_tokens, max_tokens, self.overlong_buffer_length)
        return Shaped(None if reward is None else reward + overlong, formatted, overlong)

    def _combined(self, verified: float | None, kept: bool | None, formatted: float) -> float | None:
        """Upstream's rule: verifiers alone; the form alone; their sum (additive); else verifiers where it is kept."""
        if not self.apply_verifiable_reward:
            return formatted
        if kept is None:
            return verified
        if self.additive_format_reward:
            return None if verified is None else verified + formatted
        return verified if kept else 0.0


def follows_r1_format(response: str) -> bool:
    r"""True for ``thoughts </think> <answer> answer </answer>``; what follows the answer does not matter.

    White space alone may stand between ``</think>`` and ``<answer>`` (DeepSeek-R1, arXiv 2501.12948).

    >>> follows_r1_format("Let me see.</think>\n<answer>4</answer>"), follows_r1_format("<answer>4</answer>")
    (True, False)
    """
    opened = _FORM.search(response)
    return opened is not None and response.find(ANSWER_CLOSE, opened.end()) >= 0


def soft_overlong(num_tokens: int, max_tokens: int, buffer: int) -> float:
    """DAPO's soft overlong punishment (arXiv 2503.14476, eq. 13), from 0 to -1.

    0 up to ``max_tokens - buffer`` tokens, then falling in proportion, to -1 at `max_tokens`.

    >>> soft_overlong(80, 100, 40), soft_overlong(100, 100, 40), soft_overlong(60, 100, 40)
    (-0.5, -1.0, 0.0)
    """
    return max(min((max_tokens - buffer - num_tokens) / buffer, 0.0), -1.0)
