"""Addresses without the logins in them: what is written is passed on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

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
    if isinstance(value, list):
        return [without_logins(item) for item in value]
    return _URL_LOGIN.sub(r"\1(hidden)@", value) if isinstance(value, str) else value
