"""Where a model's thinking ends and its answer begins: all that this project knows of thinking blocks and answer tags.

A block is ``<think>`` to ``</think>``, also spelled ``<thinking>``, in any case. Chat templates of thinking models
open the block in the prompt, so that a response may hold the closing tag alone: `opens_thinking` sees that in a
prompt, and `with_opening` puts the missing tag back. Without it, a response that was cut off inside its thinking
would pass for a short answer.

Open Instruct's verifiers have a rule of their own: what follows the last ``</think>``, spelled exactly like that,
whether or not another block opens behind it (`after_last_close`).
"""

from __future__ import annotations

import re

OPEN_TAG, CLOSE_TAG = "<think>", "</think>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"

_OPEN = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_CLOSE = re.compile(r"</think(?:ing)?>", re.IGNORECASE)


def after_closed_thinking(text: str) -> str:
    """What follows the last closed thinking block; all of a text that closes none.

    >>> after_closed_thinking("Hm.</think>Yes. <think>No")
    'Yes. <think>No'
    """
    end = 0
    for match in _CLOSE.finditer(text):
        end = match.end()
    return text[end:]


def thinking_start(text: str) -> int | None:
    """Where in `text` a thinking block opens first, in characters; None where none does."""
    match = _OPEN.search(text)
    return match.start() if match else None


def after_thinking(text: str) -> str | None:
    """What follows the last closed thinking block; None when one is left open.

    Templates that open the block in the prompt make replies with a closing tag only.

    >>> after_thinking("Hm.</think>Yes."), after_thinking("<think>Hm.")
    ('Yes.', None)
    """
    rest = after_closed_thinking(text)
    return rest if thinking_start(rest) is None else None


def answer_of(response: str | None) -> str:
    """What follows the thinking of a response, without space around it; "" where there is nothing."""
    return (after_thinking(response or "") or "").strip()


def opens_thinking(prompt: str) -> bool:
    """True where a rendered prompt ends with an open thinking block, so that a response to it begins with thoughts."""
    return prompt.rstrip().endswith(OPEN_TAG)


def with_opening(response: str | None) -> str | None:
    """The response to a prompt that `opens_thinking`, with the tag that stands in the prompt put back.

    A response without any text stays as it is: it is empty, not an unfinished thought.

    >>> with_opening("Hm.</think>Yes.")
    '<think>Hm.</think>Yes.'
    """
    return f"{OPEN_TAG}{response}" if isinstance(response, str) and response.strip() else response


def after_last_close(response: str) -> str:
    """What follows the last ``</think>``, by Open Instruct's rule (see above); all of it without one."""
    return response.rpartition(CLOSE_TAG)[2]


def without_answer_frame(text: str) -> str:
    """What stands between ``<answer>`` and ``</answer>`` where they frame the whole text: a format, no content."""
    inner = text[len(ANSWER_OPEN) : -len(ANSWER_CLOSE)]
    framed = text.startswith(ANSWER_OPEN) and text.endswith(ANSWER_CLOSE)
    return inner.strip() if framed and ANSWER_OPEN not in inner and ANSWER_CLOSE not in inner else text
