"""Numbers and formulas, compared by math-verify. Runs in a worker, whose limits end what takes too long.

math-verify reads an answer out of free text, parses LaTeX or plain arithmetic with SymPy, and compares by value:
1/2, 0.5 and 50% are equal, (0, 1) and (0, 1] are not.
"""

from __future__ import annotations

import re
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

BOXED_FIRST = (LatexExtractionConfig(boxed_match_priority=0),)
ANYWHERE = (*BOXED_FIRST, ExprExtractionConfig())
PLAIN = (ExprExtractionConfig(),)

# After this word math-verify takes the next number, "5" of "the answer is 5+3=8"; the last one is wanted.
_ANCHOR = re.compile("answer", re.IGNORECASE)
# math-verify wants white space, or "=", before a number.
_BRACKETS = re.compile(r"[\[\](){}<>\"'`~|_]|(?<!\d)\+(?=[\d.])")
_CURRENCY = re.compile(r"\\?[$€£¥]")
_OWN_DOLLARS = re.compile(r"(?<!\\)\$|\\boxed")
# Characters of the reported answer.
_SHOWN = 200


def check_number(label: str, response: str) -> dict[str, Any]:
    r"""`score` 1.0 where the response's number is `label`, else 0.0; `answer` is what was read (None: nothing).

    The number after the last ``####``, else in the last ``\boxed{}``, else the last of all.
    """
    _, marked, tail = response.rpartition("####")
    box = -1 if marked else response.rfind("\\boxed")
    parsed = parse(response[box:], BOXED_FIRST, parsing_timeout=0) if box >= 0 else []
    if not parsed:
        plain = _ANCHOR.sub("result", tail if marked else response)
        plain = _BRACKETS.sub("\n", _CURRENCY.sub("", plain))
        parsed = parse(plain, PLAIN, parsing_timeout=0)
    return _compared(parse(label, PLAIN, parsing_timeout=0), parsed)


def check_answer(label: str, response: str) -> dict[str, Any]:
    """The same for any mathematical answer; `score` is None where `label` holds nothing to compare with."""
    gold = label if _OWN_DOLLARS.search(label) else rf"\boxed{{{label}}}"
    expected = parse(gold, ANYWHERE, parsing_timeout=0)
    result = _compared(expected, parse(response, ANYWHERE, parsing_timeout=0))
    if result["score"] == 0.0 and response.count("\\boxed") > 1:
        # math-verify joins neighbouring boxes to one set; of a response that corrects itself the last counts.
        result = _compared(expected, parse(response[response.rfind("\\boxed") :], ANYWHERE, parsing_timeout=0))
    return result


def _compared(expected: list[Any], parsed: list[Any]) -> dict[str, Any]:
    if not expected:
        return {"score": None, "answer": None}
    score = float(verify(expected, parsed, timeout_seconds=0))
    # The last is the answer's text as the response has it; the first may be too large to print.
    return {"score": score, "answer": parsed[-1][:_SHOWN] if parsed and isinstance(parsed[-1], str) else None}
