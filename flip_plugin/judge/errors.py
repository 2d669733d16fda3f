"""What went wrong with a request to a judge, in six kinds; which are worth another try, and when.

LiteLLM reports most failures of the network as server errors and most malformed replies as connection
errors, so the chain of causes decides, not the type on top. A 4xx is the request's own fault and never
passes; 408 and 429 are the two that are not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from flip_plugin.files.redaction import without_keys

# Kinds of failure: "timeout", "connection", "rate_limit", "server", "bad_request", "context_overflow".
RETRIED = frozenset({"timeout", "connection", "rate_limit", "server"})

# As vLLM, and what stands behind other names, say that a request is too long for the model.
TOO_LONG = ("context length", "context window", "maximum model length")
LONGEST_TEXT = 600


@dataclass(frozen=True)
class Failure:
    """A failed request. `unreachable`: nobody answers at that address; `retry_after` is in seconds.

    `ran_out`: our own time ran out, while a server's 408 or 504 is an answer.
    """

    kind: str
    text: str
    unreachable: bool = False
    retry_after: float | None = None
    ran_out: bool = False


def classify(error: BaseException, *, timeout: float, keys: Iterable[str | None] = ()) -> Failure:
    """What `error` means. `timeout` is the call's deadline in seconds; `keys` never appear in the text."""
    kind, chain = error_kind(error), _chain(error)
    text = f"{type(error).__name__}: {_without_traceback(str(error))}" if str(error) else type(error).__name__
    ran_out = kind == "timeout" and _is_own_timeout(chain)
    if ran_out:
        text = f"no reply within {timeout:g} s"
    return Failure(kind, without_keys(text, keys)[:LONGEST_TEXT], _unreachable(chain), _retry_after(error), ran_out)


def error_kind(error: BaseException) -> str:
    """The class of a failed request: see `RETRIED` for those worth another try."""
    import httpx
    import litellm
    from openai import APITimeoutError

    if isinstance(error, litellm.ContextWindowExceededError):
        return "context_overflow"
    status = getattr(error, "status_code", None)
    if isinstance(error, (TimeoutError, APITimeoutError)) or status in (408, 504):
        return "timeout"
    if status == 429:
        return "rate_limit"
    if isinstance(status, int) and 400 <= status < 500:
        text = str(error).lower()
        return "context_overflow" if any(sign in text for sign in TOO_LONG) else "bad_request"
    broken = (ConnectionError, httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError)
    return "connection" if any(isinstance(link, broken) for link in _chain(error)) else "server"


def _chain(error: BaseException) -> list[BaseException]:
    """`error` and what it came from."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain


def _is_own_timeout(chain: list[BaseException]) -> bool:
    """True for a time-out of our own clock, False for a server's 408 or 504."""
    import httpx

    return any(isinstance(link, (TimeoutError, httpx.TimeoutException)) for link in chain)


def _unreachable(chain: list[BaseException]) -> bool:
    """True when no connection came about; a connection that broke may break for one request alone."""
    import aiohttp
    import httpx

    never_there = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout)
    if any(isinstance(link, (ConnectionRefusedError, *never_there)) for link in chain):
        return True
    # LiteLLM calls a reset on an open connection a ConnectError, too; httpx alone means what it says.
    through_aiohttp = any(isinstance(link, aiohttp.ClientError) for link in chain)
    return not through_aiohttp and any(isinstance(link, httpx.ConnectError) for link in chain)


def _retry_after(error: BaseException) -> float | None:
    """Seconds that the server asked for with a 429 or 503: ``Retry-After`` as a number or a date."""
    if getattr(error, "status_code", None) not in (429, 503):
        return None
    headers = getattr(error, "litellm_response_headers", None)
    if headers is None:
        headers = getattr(getattr(error, "response", None), "headers", None)
    if not isinstance(headers, Mapping):
        return None
    value = str(headers.get("retry-after") or "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _without_traceback(text: str) -> str:
    """LiteLLM puts a traceback and its arguments into some messages: keep what stands before, and the error."""
    before, mark, after = text.partition("Traceback (most recent call last)")
    if not mark:
        return text
    lines = after.partition("received_args=")[0].strip().splitlines()
    return f"{before.strip()}: {lines[-1].strip()}" if lines else before.strip()
