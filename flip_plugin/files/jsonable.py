"""Python values as plain JSON types, without NaN and infinities; `dumps` is a line of it in ASCII."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import os
from collections.abc import Mapping
from typing import Any


def to_jsonable(value: Any) -> Any:  # noqa: PLR0911 - a line a type reads best
    """`value` as plain JSON types; a float that JSON cannot hold (nan, inf) becomes None.

    Arrays and scalars of numpy and torch are recognised by their methods, so that neither
    library is imported here. An unknown type is an error rather than its `repr`.

    >>> to_jsonable({"loss": float("nan"), 3: (1, 2.5)})
    {'loss': None, '3': [1, 2.5]}
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, enum.Enum):  # before int: an IntEnum is both
        return to_jsonable(value.value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_jsonable(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "tolist"):  # numpy and torch: a number for a scalar, nested lists for an array
        return to_jsonable(value.tolist())
    raise TypeError(f"cannot write a {type(value).__module__}.{type(value).__qualname__} as JSON")


def to_number(value: Any) -> float | None:
    """A finite number, from Python, numpy or torch; None for anything else, truth values and texts too."""
    value = to_jsonable(value)
    return None if isinstance(value, bool) or not isinstance(value, int | float) else value


def dumps(value: Any) -> str:
    """One line of strict ASCII JSON."""
    return json.dumps(to_jsonable(value), ensure_ascii=True, allow_nan=False)
