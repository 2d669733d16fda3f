"""The tiny world's rule as a verifier: reported next to a judge's reward, never used as one."""

from collections.abc import Mapping
from typing import Any

from datasets_prep.tiny_world.language.grammar import constraints_satisfied
from open_instruct.verifiers.base import VerificationResult, VerifierFunction


class ConstraintsVerifier(VerifierFunction):
    """Share of the instruction's attributes that the response satisfies, judged by rule alone (0..1)."""

    def __init__(self, verifier_config: Any = None) -> None:
        super().__init__("constraints_satisfied", verifier_config=verifier_config, weight=1.0)

    def __call__(
        self,
        tokenized_prediction: list[int],
        prediction: str,
        label: Any,
        query: str | None = None,
        rollout_state: Mapping[str, Any] | None = None,
    ) -> VerificationResult:
        """`label` is the instruction's exact text. A foreign label scores 0."""
        return VerificationResult(score=constraints_satisfied(label, prediction))

    async def async_call(
        self,
        tokenized_prediction: list[int],
        prediction: str,
        label: Any,
        query: str | None = None,
        rollout_state: Mapping[str, Any] | None = None,
    ) -> VerificationResult:
        """The same; it takes microseconds, so there is no thread to hand it to."""
        return self(tokenized_prediction, prediction, label, query, rollout_state)
