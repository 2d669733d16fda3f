"""What fits into a judge's window: a response that does not loses its middle, the prompt nothing.

No tokenizer is loaded here. An estimate on the high side settles nearly every call; where
it says that a response is too long, the judge's own server counts (vLLM's ``/tokenize``),
so that nothing is cut that would have fitted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

# What a chat template adds around two messages, in tokens; generous.
TEMPLATE_TOKENS = 32
# Less than this of a long response is not worth a judgement, in tokens.
LEAST_RESPONSE_TOKENS = 16
# Rounds of cutting and counting again.
MOST_COUNTS = 4


def estimate_tokens(text: str) -> int:
    """Tokens in `text`, on the high side, without a tokenizer: for budgets, not for bills.

    Three ASCII characters a token, but one digit or one other character a token, as
    current vocabularies have them at worst.
    """
    plain = len(text) if text.isascii() else len(text.encode("ascii", "ignore"))
    digits = sum(text.count(digit) for digit in "0123456789")
    return -(-(plain - digits) // 3) + digits + (len(text) - plain)


def cut_middle(text: str, keep: int) -> str:
    """The first and last `keep` / 2 characters of `text`, and how many were left out between them."""
    half = keep // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[len(text) - half :]}"


def shorten(text: str, room: int) -> str | None:
    """`text` in at most `room` estimated tokens, its middle left out and the gap named.

    The ends tell most about an instruction. None when `room` is too small to say anything.
    """
    total = estimate_tokens(text)
    if total <= room:
        return text
    if room < LEAST_RESPONSE_TOKENS:
        return None
    keep = int(len(text) * room / total)
    while keep > 1:
        short = cut_middle(text, keep)
        if estimate_tokens(short) <= room:
            return short
        keep = int(keep * 0.9)
    return None


async def shorten_counted(text: str, limit: int, count: Callable[[str], Awaitable[int | None]]) -> str | None:
    """As much of `text` as lets `count` of it be at most `limit`; None when next to nothing does.

    `count` gives the tokens of the whole prompt around a text. Raises `CannotCount` when it gives None.
    """
    total = await _counted(count, text)
    if total <= limit:
        return text
    fixed = await _counted(count, "")
    room = limit - fixed
    if room < LEAST_RESPONSE_TOKENS:
        return None
    # Tokens a character differ between the ends and the middle, so cut, count, and cut again.
    keep = int(len(text) * room / (total - fixed))
    for _ in range(MOST_COUNTS):
        short = cut_middle(text, keep)
        over = await _counted(count, short) - limit
        if over <= 0:
            return short
        keep = int(keep * (room - over) / room) - 16
        if keep < LEAST_RESPONSE_TOKENS:
            return None
    return None


class CannotCount(Exception):
    """The server does not say how many tokens a prompt has."""


async def _counted(count: Callable[[str], Awaitable[int | None]], text: str) -> int:
    tokens = await count(text)
    if tokens is None:
        raise CannotCount
    return tokens
