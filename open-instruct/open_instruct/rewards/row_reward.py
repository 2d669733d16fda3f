"""The reward of one response from the verifiers that its row names."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flip_plugin.rows.checks import labels_by_verifier
from open_instruct.rewards.registry import check_verifier_names
from open_instruct.verifiers.base import VerificationResult, VerifierFunction


@dataclass
class SampleReward:
    """`reward` is None when any verifier's score is missing; `status` is then the first such status."""

    reward: float | None
    per_verifier: dict[str, VerificationResult] = field(default_factory=dict)
    status: str = "ok"


@dataclass
class RewardConfig:
    """How a row's verifiers make its reward: sum of verification_reward * weight * score."""

    verifier_functions: dict[str, VerifierFunction]
    verification_reward: float = 10.0

    async def score_sample(
        self,
        prediction: str,
        tokenized: list[int],
        ground_truth: Any,
        dataset: str | Sequence[str],
        query: str | None = None,
        rollout_state: Mapping[str, Any] | None = None,
    ) -> SampleReward:
        """The reward of one response. Raises `UnknownVerifier`, and ValueError for unequal lists."""
        pairs = labels_by_verifier(dataset, ground_truth)
        check_verifier_names([[name for name, _ in pairs]], self.verifier_functions)
        verifiers = [self.verifier_functions[name.lower()] for name, _ in pairs]
        results = await asyncio.gather(
            *(
                verifier.async_call(tokenized, prediction, label, query, rollout_state=rollout_state)
                for verifier, (_, label) in zip(verifiers, pairs, strict=True)
            )
        )
        reward, missing, status, per_verifier = 0.0, False, "ok", {}
        for verifier, result in zip(verifiers, results, strict=True):
            key, number = verifier.name, 2
            while key in per_verifier:  # a verifier that the row names twice
                key, number = f"{verifier.name}#{number}", number + 1
            per_verifier[key] = result
            if verifier.weight == 0:
                continue  # reported only: it cannot make a reward, so it cannot make one missing
            if result.score is None:
                status, missing = (result.status if status == "ok" else status), True
            else:
                reward += self.verification_reward * verifier.weight * result.score
        return SampleReward(None if missing else reward, per_verifier, status)
