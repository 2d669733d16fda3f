from typing import Any

import pytest
from judge_answers import answers

from flip_plugin.evals.judges.options import EvalOptions
from flip_plugin.evals.judges.spec import JudgeSpec
from flip_plugin.evals.records.items import EvalItem


@pytest.fixture
def knowing(judge):
    """The stub judge, answering by `answers`."""
    judge.handler = answers
    return judge


@pytest.fixture
def items():
    def make(n=3, responses=("good", "bad one", "bad two"), subset="A"):
        right = [one.startswith("good") for one in responses]
        # The number in the prompt and the responses makes every question another one.
        return [
            EvalItem(str(i), f"Say it well {i}", [f"{one} {i}" for one in responses], right, subset) for i in range(n)
        ]

    return make


@pytest.fixture
def options(tmp_path):
    def make(*bases, **more):
        names = "abcdef"
        judges = [JudgeSpec(names[at], "hosted_vllm/m", base) for at, base in enumerate(bases)]
        given: dict[str, Any] = {"seeds": (1,), "timeout": 5.0, "max_concurrency": 8, **more}
        return EvalOptions(output=tmp_path / "run", judges=judges, **given)

    return make
