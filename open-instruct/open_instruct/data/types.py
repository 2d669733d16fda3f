"""What the stages of a run hand to each other: plain, typed, picklable data.

PromptRequest -> engine -> Sample x G -> verifiers -> ScoredSample x G = Group -> PackedBatch -> learner
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SamplingConfig:
    """How the policy is sampled; `max_tokens` counts response tokens."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 256
    stop_strings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One response: T token ids, T natural-log probabilities under the sampling distribution.

    `finish_reason` is vLLM's: "stop" or "length". `weights_version` is the number of weight updates
    that the engine had seen when the response was finished.
    """

    token_ids: list[int]
    logprobs: list[float]
    finish_reason: str
    weights_version: int


@dataclass
class ScoredSample:
    """A sample with its verifiers' results; `reward` is None where a score is missing.

    `score` is the mean of the verifiers' own scores, 0 to 1, None where one is missing or the row has no verifier;
    `format_reward` and `overlong` are those parts of the reward, None where they are off.
    `judge_start` is a time of the data preparation actor's clock, as is `Group.generation_start`.
    """

    sample: Sample
    response: str
    reward: float | None
    score: float | None
    status: str
    per_verifier: dict[str, Any]
    reported: dict[str, float | None]
    advantage: float | None = None
    judge_seconds: float = 0.0
    format_reward: float | None = None
    overlong: float | None = None
    judge_start: float = 0.0


@dataclass
class Group:
    """The G samples of one prompt, in the order in which the engine numbered them."""

    row: dict[str, Any]
    samples: list[ScoredSample]
    generation_seconds: float
    scoring_seconds: float
    generation_start: float = 0.0


@dataclass
class PackedBatch:
    """One learner's share of a mini-batch: packs of several samples each, padded to one length.

    Lists of P packs, each of L integers or floats (L = pack length):
    `input_ids`, `position_ids`, `segment_ids` (0 is padding, samples count from 1),
    `response_mask` (1 where the token was sampled by the policy), `advantages`,
    `sampler_logprobs` (0 outside the response mask).
    """

    input_ids: Any
    position_ids: Any
    segment_ids: Any
    response_mask: Any
    advantages: Any
    sampler_logprobs: Any


@dataclass
class StepData:
    """A training step as the data side hands it over, and what it measured.

    `batches[rank][i]` is mini-batch i of learner `rank`; all learners have as many mini-batches, and as many
    packs in each. `warnings` are sentences for the log.
    """

    step: int
    batches: list[list[PackedBatch]]
    metrics: dict[str, float | None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
