"""Which part of a response is its answer, as the verifiers without a judge read it."""

from __future__ import annotations

import re

from flip_plugin.text.reasoning import ANSWER_CLOSE, ANSWER_OPEN, after_last_close

_BETWEEN_TAGS = re.compile(rf"{ANSWER_OPEN}(.*?){ANSWER_CLOSE}", re.DOTALL)


def without_thinking(response: str) -> str:
    """What follows the last ``</think>``, without the tags of an answer (upstream's rule).

    >>> without_thinking("<think>Hm.</think><answer>Paris</answer>")
    'Paris'
    """
    text = after_last_close(response.replace("<|assistant|>", ""))
    return text.replace(ANSWER_OPEN, "").replace(ANSWER_CLOSE, "").strip()


def stated_answer(response: str) -> str:
    """What stands in the last ``<answer>`` tags after the thinking, else all of it.

    >>> stated_answer("<think>8?</think>So <answer>9</answer>, I think.")
    '9'
    """
    answers = _BETWEEN_TAGS.findall(after_last_close(response))
    return answers[-1].strip() if answers else without_thinking(response)


def end_of(text: str, characters: int) -> str:
    """The last lines of `text`, about so many characters of them: an answer stands at the end.

    A cut is made at the end of a line, so that what is between two dollar signs stays so.
    """
    if len(text) <= characters:
        return text
    tail = text[-characters:]
    return tail.partition("\n")[2] or tail
