"""Which part of a response is its answer."""

from __future__ import annotations

import re

_INSIDE = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def without_thinking(response: str) -> str:
    """What follows the last ``</think>``, without the tags of an answer (upstream's rule).

    >>> without_thinking("<think>Hm.</think><answer>Paris</answer>")
    'Paris'
    """
    text = response.replace("<|assistant|>", "").rpartition("</think>")[2]
    return text.replace("<answer>", "").replace("</answer>", "").strip()


def stated_answer(response: str) -> str:
    """What stands in the last ``<answer>`` tags after the thinking, else all of it.

    >>> stated_answer("<think>8?</think>So <answer>9</answer>, I think.")
    '9'
    """
    found = _INSIDE.findall(response.rpartition("</think>")[2])
    return found[-1].strip() if found else without_thinking(response)


def end_of(text: str, characters: int) -> str:
    """The last lines of `text`, about so many characters of them: an answer stands at the end.

    A cut is made at the end of a line, so that what is between two dollar signs stays so.
    """
    if len(text) <= characters:
        return text
    tail = text[-characters:]
    return tail.partition("\n")[2] or tail
