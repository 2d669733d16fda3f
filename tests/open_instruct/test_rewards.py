"""What verifiers are told of a sample."""

import pytest

from open_instruct.data_types import Sample
from open_instruct.dataset_transformation import get_tokenizer
from open_instruct.ground_truth_utils import RewardConfig, VerificationResult
from open_instruct.rewards import RowScorer

TOKENIZER = "datasets_prep/tiny_world/models/policy"


@pytest.mark.parametrize(
    ("ending", "opens"), [("<think>", True), ("<think>\n", True), ("</think>", False), ("", False)]
)
async def test_verifiers_are_told_when_the_prompt_opens_the_thinking(ending, opens):
    states = []

    class Remembers:  # no subclass: the registry would find it in other tests
        name, weight = "remembers", 1.0

        async def async_call(self, *args, rollout_state=None):
            states.append(rollout_state)
            return VerificationResult(1.0)

    tokenizer = get_tokenizer(TOKENIZER)
    row = {"messages": [], "ground_truth": ["x"], "dataset": ["remembers"], "prompt": "user: x"}
    row["input_ids_prompt"] = tokenizer.encode("Write about rain. " + ending)
    scorer = RowScorer(TOKENIZER, RewardConfig({"remembers": Remembers()}), {})
    await scorer.score(row, [Sample(tokenizer.encode("rain"), [-1.0], "length", 0)], max_tokens=8)
    assert states[0]["prompt_opens_think"] is opens
    assert states[0]["finish_reason"] == "length"
