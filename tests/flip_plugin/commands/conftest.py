"""`flip score`, run against the stub judge."""

import pytest
from row_cases import write

from flip_plugin.cli import main


@pytest.fixture
def score(judge, tmp_path):
    def run(*more, given=None):
        if given is not None:
            write(tmp_path / "in.jsonl", given)
        command = ["score", "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
        options = ["--judge_model", "hosted_vllm/m", "--api_base", judge.base, "--timeout", "5"]
        return main([*command, *options, *more])

    return run
