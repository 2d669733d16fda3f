"""Keeping keys and logins out of what gets passed on: configurations, addresses, messages of errors, records."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

HIDDEN = "(hidden)"
_SECRET_NAME = re.compile(r"api_?key|password|secret|(auth|access|hf|bearer)_?token|authorization", re.IGNORECASE)
# Shorter secrets would turn a text into a row of "[key]"; nobody has shorter ones.
_LEAST_KEY, _LEAST_ENVIRONMENT_KEY = 4, 8
# To the last @ before a slash or a space: a password may hold one.
_URL_LOGIN = re.compile(r"(\w+://)[^/\s]+@")


def without_logins(value: Any) -> Any:
    """Nested plain data without the logins inside addresses.

    >>> without_logins({"api_base": "http://me:pw@127.0.0.1/v1"})
    {'api_base': 'http://(hidden)@127.0.0.1/v1'}
    >>> without_logins("http://me:p@ss@127.0.0.1/v1 failed")
    'http://(hidden)@127.0.0.1/v1 failed'
    """
    if isinstance(value, Mapping):
        return {key: without_logins(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_logins(item) for item in value]
    return _URL_LOGIN.sub(rf"\1{HIDDEN}@", value) if isinstance(value, str) else value


def without_secrets(value: Any, name: str = "") -> Any:
    """A copy of nested plain data with `HIDDEN` for every value whose name says that it is a key.

    A login inside an address goes, too.

    >>> without_secrets({"hf_token": "x", "max_tokens": 5, "base": "http://me:pw@127.0.0.1/v1"})
    {'hf_token': '(hidden)', 'max_tokens': 5, 'base': 'http://(hidden)@127.0.0.1/v1'}
    """
    if isinstance(value, Mapping):
        return {key: without_secrets(item, str(key)) for key, item in value.items()}
    if value and _SECRET_NAME.search(name):
        return HIDDEN
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    return without_logins(value)


def without_keys(text: str, keys: Iterable[str | None]) -> str:
    """`text` without `keys`, and without what the environment names ``*_API_KEY``, ``*_TOKEN`` or ``*_SECRET``."""
    secrets = [key for key in keys if key and len(key) >= _LEAST_KEY]
    endings = ("_API_KEY", "_TOKEN", "_SECRET")
    secrets += [v for k, v in os.environ.items() if k.upper().endswith(endings) and len(v) >= _LEAST_ENVIRONMENT_KEY]
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "[key]")
    return text
