"""The tiny world's rule, as the trainer finds and calls it."""

import pytest

from open_instruct.config.args import Args
from open_instruct.rewards.registry import build_all_verifiers

INSTRUCTION = (
    "Write a gloomy letter about honey bees for old sailors: two sentences, mention the lantern, end with a "
    "solemn promise."
)
RESPONSE = (
    "Dear friend, the swarm danced over clover, all hope seemed gone, I kept the lantern, and grey seafarers "
    "will understand. You have my word."
)


@pytest.fixture(scope="module")
def verifier():
    return build_all_verifiers(Args())["constraints_satisfied"]


async def test_the_score_is_the_share_of_satisfied_attributes(verifier):
    full = await verifier.async_call([1, 2], RESPONSE, INSTRUCTION, "a query")
    part = await verifier.async_call([1, 2], RESPONSE.replace("lantern", "violin"), INSTRUCTION, "a query")
    assert full.score == 1.0
    assert part.score == pytest.approx(6 / 7)
    assert full.cost == 0.0


@pytest.mark.parametrize("label", ["Some other dataset's answer", "", None])
async def test_foreign_labels_score_nothing(verifier, label):
    assert (await verifier.async_call([], RESPONSE, label, "a query")).score == 0.0
