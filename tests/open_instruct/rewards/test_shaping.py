"""What becomes of the verifiers' reward, and that each verifier's own score stays what it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_instruct.config.args import Args, FlagError
from open_instruct.data.templates import get_tokenizer
from open_instruct.data.types import Group, Sample
from open_instruct.rewards.missing import JudgeFailure, check_invalid_share
from open_instruct.rewards.registry import build_all_verifiers, weigh_verifiers
from open_instruct.rewards.row_reward import RewardConfig
from open_instruct.rewards.scorer import RowScorer
from open_instruct.rewards.shaping import RewardShaping, follows_r1_format, soft_overlong
from open_instruct.rollout.step_metrics import group_metrics
from open_instruct.verifiers.base import VerificationResult

TOKENIZER = "datasets_prep/tiny_world/models/policy"
GOOD = "It is four.</think>\n\n<answer>4</answer>"
BAD = "It is four. <answer>4</answer>"


def shape(verified, response=GOOD, finish_reason="stop", num_tokens=10, max_tokens=100, **flags):
    asked = {"response": response, "finish_reason": finish_reason, "num_tokens": num_tokens, "max_tokens": max_tokens}
    return RewardShaping(**flags).shape(verified, **asked)


@pytest.mark.parametrize(
    ("response", "kept"),
    [
        (GOOD, True),
        ("<think>hm</think><answer></answer>", True),
        ("a</think>b</think> <answer>4</answer> and more", True),
        ("</think><answer>{}" + "\n" * 5 + "</answer>", True),
        (BAD, False),
        ("hm</think> so: <answer>4</answer>", False),
        ("hm</think><answer>4", False),
        ("<answer>4</answer>hm</think>", False),
        ("</answer></think><answer>4", False),
        ("", False),
    ],
)
def test_the_form_of_r1(response, kept):
    assert follows_r1_format(response) is kept


def test_a_hostile_response_does_not_stall_the_form_check():
    assert not follows_r1_format("</think>" * 100_000 + "<answer" * 100_000 + " " * 1_000_000)


FORM = {"apply_r1_style_format_reward": True, "r1_style_format_reward": 2.0}


@pytest.mark.parametrize(
    ("flags", "good", "bad"),
    [
        ({}, 7.0, 7.0),
        (FORM | {"r1_style_format_reward": 1.0}, 7.0, 0.0),
        (FORM, 7.0, 0.0),  # upstream's gate asks for a format reward of exactly 1, and would give 0 to both
        (FORM | {"additive_format_reward": True}, 9.0, 7.0),
        (FORM | {"apply_verifiable_reward": False}, 2.0, 0.0),
        ({"apply_verifiable_reward": False, "non_stop_penalty": True}, 0.0, 0.0),
    ],
)
def test_how_form_and_verifiers_combine(flags, good, bad):
    assert shape(7.0, GOOD, **flags).reward == good
    assert shape(7.0, BAD, **flags).reward == bad


def test_a_missing_reward_stays_missing_unless_it_cannot_matter():
    gate = {"apply_r1_style_format_reward": True}
    assert shape(None).reward is None
    assert shape(None, GOOD, **gate).reward is None
    assert shape(None, GOOD, additive_format_reward=True, **gate).reward is None
    assert shape(None, overlong_buffer_length=50, num_tokens=80).reward is None
    assert shape(None, BAD, **gate).reward == 0.0, "whatever the judge would have said"
    stop = {"non_stop_penalty": True, "non_stop_penalty_value": -3.0}
    assert shape(None, finish_reason="length", **stop).reward == -3.0


def test_the_non_stop_penalty_takes_the_place_of_everything():
    flags = {"non_stop_penalty": True, "non_stop_penalty_value": -1.0, "overlong_buffer_length": 50}
    assert shape(7.0, finish_reason="length", num_tokens=100, **flags).reward == -1.0
    assert shape(7.0, finish_reason="stop", **flags).reward == 7.0
    assert shape(7.0, finish_reason="length").reward == 7.0, "off unless asked for"


def test_the_overlong_punishment_by_hand():
    assert [soft_overlong(n, 100, 20) for n in (0, 80, 85, 90, 100)] == [0.0, 0.0, -0.25, -0.5, -1.0]
    shaped = shape(7.0, num_tokens=85, overlong_buffer_length=20, overlong_penalty=4.0)
    assert shaped.reward == 6.0 and shaped.overlong == -1.0


@given(st.integers(0, 200), st.integers(1, 200), st.integers(1, 200))
def test_longer_is_never_better(num_tokens, max_tokens, buffer):
    now, longer = soft_overlong(num_tokens, max_tokens, buffer), soft_overlong(num_tokens + 1, max_tokens, buffer)
    assert -1.0 <= longer <= now <= 0.0


def test_verifier_weights_are_read_or_refused():
    verifiers = build_all_verifiers(Args(remap_verifier="other=constraints_satisfied"))
    weighed = weigh_verifiers(verifiers, ["Constraints_Satisfied=0.25"])
    assert weighed["constraints_satisfied"].weight == 0.25
    assert weighed["other"].weight == verifiers["constraints_satisfied"].weight == 1.0
    for words, told in (
        (["nobody=1"], "nobody=1: not among .*constraints_satisfied"),
        (["general-flip"], "NAME=WEIGHT"),
        (["general-flip=much"], "NAME=WEIGHT"),
        (["general-flip=nan"], "NAME=WEIGHT"),
        (["=1"], "NAME=WEIGHT"),
        (["general-flip=1", "general-FLIP=2"], "twice"),
    ):
        with pytest.raises(FlagError, match=told):
            weigh_verifiers(verifiers, words)


# The same through `RowScorer`, with verifiers that count who asks them.


class Scripted:
    """No subclass of `VerifierFunction`: the registry would find it in other tests."""

    def __init__(self, name, score, weight=1.0):
        self.name, self.score, self.weight, self.asked = name, score, weight, 0

    async def async_call(self, *args, rollout_state=None):
        self.asked += 1
        status = "ok" if self.score is not None else "judge_error"
        return VerificationResult(self.score, status=status)


@pytest.fixture(scope="module")
def tokenizer():
    return get_tokenizer(TOKENIZER)


async def score(tokenizer, verifiers, samples, **flags):
    row = {
        "messages": [],
        "prompt": "user: x",
        "input_ids_prompt": tokenizer.encode("x"),
        "index": 0,
        "dataset": [v.name for v in verifiers],
        "ground_truth": ["x"] * len(verifiers),
    }
    scorer = RowScorer(TOKENIZER, RewardConfig({v.name: v for v in verifiers}), {}, RewardShaping(**flags))
    scorer._tokenizer = tokenizer  # spares the import of the judge's client
    samples = [Sample(ids := tokenizer.encode(text), [-1.0] * len(ids), reason, 0) for text, reason in samples]
    return Group(row, await scorer.score(row, samples, max_tokens=64), 0.1, 0.1)


async def test_weighted_verifiers_add_up_and_log_their_own_scores(tokenizer):
    verifiers = [Scripted("one", 0.5, weight=2.0), Scripted("two", 0.25, weight=0.0)]
    group = await score(tokenizer, verifiers, [(GOOD, "stop"), (BAD, "stop")], apply_r1_style_format_reward=True)
    assert [s.reward for s in group.samples] == [10.0, 0.0]
    metrics = group_metrics([group], prefix="objective")
    assert metrics["objective/one_reward"] == 0.5 and metrics["objective/two_reward"] == 0.25
    assert metrics["objective/scores"] == 5.0 and metrics["val/format_scores"] == 0.5


async def test_who_did_not_stop_is_penalised_without_asking_the_judge(tokenizer):
    judge = Scripted("judge", 0.5)
    flags = {"non_stop_penalty": True, "non_stop_penalty_value": -2.0}
    group = await score(tokenizer, [judge], [("rain", "length"), ("rain", "stop")], **flags)
    assert [s.reward for s in group.samples] == [-2.0, 5.0]
    assert [s.status for s in group.samples] == ["not_stopped", "ok"]
    assert judge.asked == 1
    metrics = group_metrics([group], prefix="objective")
    assert metrics["objective/judge_reward"] == 0.5 and metrics["objective/invalid_frac"] == 0.0


async def test_penalties_do_not_hide_a_judge_that_is_down(tokenizer):
    samples = [("rain", "length")] * 3 + [(GOOD, "stop"), (BAD, "stop")]
    flags = {"non_stop_penalty": True, "apply_r1_style_format_reward": True}
    group = await score(tokenizer, [Scripted("judge", None)], samples, **flags)
    assert [s.reward for s in group.samples] == [0.0, 0.0, 0.0, None, 0.0]
    with pytest.raises(JudgeFailure, match="2 of 2 rewards of step 1"):
        check_invalid_share([group], 0.5, "step 1")


async def test_without_verifiable_rewards_no_verifier_is_asked(tokenizer):
    judge = Scripted("judge", 0.5)
    flags = {"apply_verifiable_reward": False, "apply_r1_style_format_reward": True, "r1_style_format_reward": 3.0}
    group = await score(tokenizer, [judge], [(GOOD, "stop"), (BAD, "stop")], **flags)
    assert [s.reward for s in group.samples] == [3.0, 0.0]
    assert judge.asked == 0 and [s.score for s in group.samples] == [None, None]
    check_invalid_share([group], 0.5, "step 1")
