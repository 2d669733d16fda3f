"""What a trainer logs, as strict JSON."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from flip_plugin.files.jsonable import to_jsonable


@dataclass
class Point:
    x: int
    where: Path


def test_to_jsonable_handles_what_a_trainer_logs():
    value = {
        "nan": float("nan"),
        "np": np.float32("inf"),
        "np64": np.float64(0.5),
        "int": np.int64(3),
        "flag": np.bool_(True),
        "bf16": torch.tensor(0.5, dtype=torch.bfloat16),
        "tensor": torch.tensor([1.0, float("nan")]),
        4: Point(1, Path("a") / "b"),
    }
    assert to_jsonable(value) == {
        "nan": None,
        "np": None,
        "np64": 0.5,
        "int": 3,
        "flag": True,
        "bf16": 0.5,
        "tensor": [1.0, None],
        "4": {"x": 1, "where": "a/b"},
    }
    with pytest.raises(TypeError, match="object as JSON"):
        to_jsonable({"x": object()})
