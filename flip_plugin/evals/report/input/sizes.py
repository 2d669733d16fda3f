"""How many parameters a judge has: by the user's word, by its files, or by its name, in this order."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flip_plugin.errors import CommandError
from flip_plugin.evals.report.input.runs import EvalRun

_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
_IN_NAME = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", re.IGNORECASE)
# A header is some bytes a tensor; more than this is no header.
_LONGEST_HEADER = 2**26


def sizes_of(runs: Iterable[EvalRun], given: Mapping[str, float]) -> dict[str, float]:
    """Parameters by judge name, for the judges of which a number is known."""
    sizes: dict[str, float] = {}
    for run in runs:
        for judge in run.config.get("judges") or []:
            name = str(judge.get("name"))
            size = given.get(name) or judge.get("parameters") or _in_files(judge) or in_name(judge.get("model"))
            if size and name not in sizes:
                sizes[name] = float(size)
    return {**sizes, **given}


def parse_sizes(texts: Iterable[str]) -> dict[str, float]:
    """``NAME=1.7B`` texts. Raises `CommandError` for what is none.

    >>> parse_sizes(["small=0.85M", "big=4e9"])
    {'small': 850000.0, 'big': 4000000000.0}
    """
    sizes = {}
    for text in texts:
        name, _, size = text.partition("=")
        match = re.fullmatch(r"([\d.]+(?:e\d+)?)([kmbt]?)", size.strip(), re.IGNORECASE)
        if not name or not match:
            raise CommandError(f"--sizes takes NAME=PARAMETERS as in small=1.7B, not {text!r}")
        sizes[name] = float(match[1]) * _UNITS[match[2].lower()]
    return sizes


def in_name(model: Any) -> float | None:
    """What a model's name says of its size.

    >>> in_name("hosted_vllm/Qwen/Qwen3-1.7B"), in_name("judge")
    (1700000000.0, None)
    """
    match = _IN_NAME.search(str(model).replace("-", " ").replace("_", " "))
    return float(match[1]) * _UNITS[match[2].lower()] if match else None


def _in_files(judge: Mapping[str, Any]) -> float | None:
    """The parameters in a local model's safetensors files, from their headers alone."""
    if not judge.get("offline"):
        return None
    files = sorted(Path(str(judge.get("model"))).glob("*.safetensors"))
    return sum(_in_header(file) for file in files) or None


def _in_header(file: Path) -> float:
    with file.open("rb") as bytes_of:
        length = int.from_bytes(bytes_of.read(8), "little")
        if length > _LONGEST_HEADER:
            return 0.0
        header = json.loads(bytes_of.read(length))
    return float(sum(math.prod(one["shape"]) for name, one in header.items() if name != "__metadata__"))
