"""Keeping keys out of what gets passed on: a configuration as trackers and reports may show it."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "(hidden)"
_SECRET_NAME = re.compile(r"api_?key|password|secret|(auth|access|hf|bearer)_?token|authorization", re.IGNORECASE)
_URL_LOGIN = re.compile(r"(\w+://)[^/@\s]+@")


def without_secrets(value: Any, name: str = "") -> Any:
    """A copy of nested plain data with `HIDDEN` for every value whose name says that it is a key.

    A login inside an address goes, too.

    >>> without_secrets({"hf_token": "x", "max_tokens": 5, "base": "http://me:pw@127.0.0.1/v1"})
    {'hf_token': '(hidden)', 'max_tokens': 5, 'base': 'http://(hidden)@127.0.0.1/v1'}
    """
    if isinstance(value, dict):
        return {key: without_secrets(item, str(key)) for key, item in value.items()}
    if value and _SECRET_NAME.search(name):
        return HIDDEN
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    return _URL_LOGIN.sub(rf"\1{HIDDEN}@", value) if isinstance(value, str) else value
