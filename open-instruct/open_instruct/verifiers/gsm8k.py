"""`gsm8k`: the response's last number is the label's."""

from __future__ import annotations

import re
from typing import Any

from open_instruct.verifiers.base import BadLabel, VerificationResult, VerifierFunction
from open_instruct.verifiers.checked import CheckedInWorker
from open_instruct.verifiers.text import end_of, stated_answer

# Characters at the end of a response in which its number is looked for.
READ_CHARACTERS = 10_000
_NUMBER = re.compile(r"-?(\d+(\.\d*)?|\.\d+)(/\d+)?")


def number_of(label: Any) -> str:
    """A label as a plain number: an int or float, or text such as ``1,000``, ``$18``, ``3/4``, ``-2.5``.

    A whole solution of GSM8K, which ends with ``#### 18``, will do, too. Raises `BadLabel`.
    """
    if isinstance(label, bool) or not isinstance(label, (str, int, float)):
        raise BadLabel(f"is a {type(label).__name__}; gsm8k wants a number, such as 18 or '1,000'")
    text = str(label).rpartition("####")[2].strip().replace(",", "").replace("$", "").lstrip("+").rstrip(".%")
    if not _NUMBER.fullmatch(text):
        raise BadLabel(f"{str(label)[-80:]!r} is not a number; gsm8k wants one, such as 18 or '1,000'")
    return text


class GSM8KVerifier(CheckedInWorker, VerifierFunction):
    """1.0 for the right number, compared by value (18.00 is 18); see `check_number` in `flip_plugin.answers`."""

    operation = "number"
    example = (18, "#### 18")

    def __init__(self, verifier_config: Any = None) -> None:
        super().__init__("gsm8k", verifier_config=verifier_config, weight=1.0)

    def request(self, label: Any, response: str) -> dict[str, Any]:
        """The label, and the answer that the response states."""
        return {"label": number_of(label), "response": end_of(stated_answer(response), READ_CHARACTERS)}

    def read(self, value: Any) -> VerificationResult:
        """1.0 or 0.0, with the answer that was read."""
        return VerificationResult(value["score"], details={"answer": value["answer"]})
