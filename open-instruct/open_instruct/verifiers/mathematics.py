"""`math`: the response's answer equals the label's, as mathematics."""

from __future__ import annotations

from typing import Any

from open_instruct.verifiers.base import BadLabel, VerificationResult, VerifierFunction
from open_instruct.verifiers.checked import CheckedInWorker
from open_instruct.verifiers.text import end_of, stated_answer

# Characters at the end of a response in which its answer is looked for.
READ_CHARACTERS = 10_000
MAX_LABEL = 2_000


class MathVerifier(CheckedInWorker, VerifierFunction):
    r"""1.0 for an equivalent answer: the last ``\boxed{}``, else what "the answer is" announces, else the last.

    The label is LaTeX (``\frac{1}{2}``, with or without dollars or ``\boxed``), plain arithmetic, or a number.
    """

    operation = "answer"
    example = (r"\frac{1}{2}", r"\boxed{0.5}")

    def __init__(self, verifier_config: Any = None) -> None:
        super().__init__("math", verifier_config=verifier_config, weight=1.0)

    def request(self, label: Any, response: str) -> dict[str, Any]:
        """The label, and the answer that the response states."""
        return {"label": _latex(label), "response": end_of(stated_answer(response), READ_CHARACTERS)}

    def read(self, value: Any) -> VerificationResult:
        """1.0 or 0.0, with the answer that was read."""
        if value["score"] is None:
            error = "ground_truth holds nothing that math-verify can compare with"
            return VerificationResult(None, status="unusable_label", details={"error": error})
        return VerificationResult(value["score"], details={"answer": value["answer"]})


def _latex(label: Any) -> str:
    if isinstance(label, bool) or not isinstance(label, (str, int, float)):
        raise BadLabel(f"is a {type(label).__name__}; math wants the answer as LaTeX text, such as '\\frac{{1}}{{2}}'")
    text = str(label).strip()
    if not text or len(text) > MAX_LABEL:
        raise BadLabel(f"has {len(text)} characters; math wants the answer alone, 1 to {MAX_LABEL} characters of LaTeX")
    depth = 0
    for previous, char in zip(" " + text, text, strict=False):
        if char in "{}" and previous != "\\":
            depth += 1 if char == "{" else -1
            if depth < 0:
                break
    if depth:
        raise BadLabel(f"{text[:80]!r} has unbalanced braces; math wants LaTeX, such as '\\frac{{1}}{{2}}'")
    return text
