"""`string_f1`: word overlap with a reference answer, the F1 of SQuAD."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flip_plugin.text.similarity import f1_score
from open_instruct.verifiers.base import BadLabel, VerificationResult, VerifierFunction
from open_instruct.verifiers.text import without_thinking


class F1Verifier(VerifierFunction):
    """F1 of the response, thinking and answer tags removed, and the label; of several labels the best, 0..1."""

    def __init__(self, verifier_config: Any = None) -> None:
        super().__init__("string_f1", verifier_config=verifier_config, weight=1.0)

    def check_label(self, label: Any) -> None:
        """Raises `BadLabel` for a label that is not text, or an empty one."""
        _references(label)

    def __call__(
        self,
        tokenized_prediction: list[int],
        prediction: str,
        label: Any,
        query: str | None = None,
        rollout_state: Mapping[str, Any] | None = None,
    ) -> VerificationResult:
        """Linear in the length of the response; `async_call` runs it in a thread."""
        try:
            references = _references(label)
        except BadLabel as error:
            return VerificationResult(None, status="unusable_label", details={"error": f"ground_truth {error}"})
        answer = without_thinking(prediction)
        return VerificationResult(max(f1_score(answer, reference)["f1"] for reference in references))


def _references(label: Any) -> list[str]:
    labels = list(label) if isinstance(label, Sequence) and not isinstance(label, str) else [label]
    usable = [str(one) for one in labels if isinstance(one, (str, int, float)) and str(one).strip()]
    if not usable or len(usable) < len(labels):
        raise BadLabel("must be the reference answer as text, or a list of texts of which the best counts")
    return usable
