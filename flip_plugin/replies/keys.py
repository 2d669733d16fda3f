"""The keys under which judges give their answers, in every spelling that is accepted. Add a spelling here.

Prompts ask for ``INFERRED INSTRUCTION``, ``SCORE``, ``BEST_RESPONSE_INDEX`` or ``BETTER_RESPONSE``; judges also write
``inferred_instruction``, ``Instruction`` or ``rating``. `plain` makes one word of a key, and the tables hold such
words: the one that was asked for first, looser ones behind it.
"""

from __future__ import annotations

import re

_NOT_LETTERS = re.compile(r"[\W_]+")

INSTRUCTION_KEYS = ("inferredinstruction", "inferredinstructions", "instruction", "instructions")
SCORE_KEYS = ("score", "rating")
INDEX_KEYS = ("bestresponseindex", "bestindex", "responseindex", "bestresponse", "index", "best")
BETTER_KEYS = ("betterresponse", "better", "winner", "verdict")
REASONING_KEY = "reasoning"

#: Keys that count without quotes behind a comma, where any other word may be prose. A space stands for a blank,
#: an underscore, a hyphen or nothing.
UNQUOTED_KEYS = (
    REASONING_KEY,
    "inferred instruction",
    "instruction",
    "score",
    "rating",
    "best response index",
    "better response",
)


def plain(key: str) -> str:
    """A key in lower case, letters and digits alone.

    >>> plain("INFERRED_INSTRUCTION:") in INSTRUCTION_KEYS
    True
    """
    return _NOT_LETTERS.sub("", key).lower()
