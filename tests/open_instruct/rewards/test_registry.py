import asyncio
import json
import pickle
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

from flip_plugin import plugins
from flip_plugin.plugins import PluginError
from open_instruct.rewards import judge_types as judge_utils
from open_instruct.rewards.judge_types import JudgeSpec, judge_specs
from open_instruct.rewards.judge_verifier import LMJudgeVerifier, LMJudgeVerifierConfig
from open_instruct.rewards.registry import build_all_verifiers, check_verifier_names
from open_instruct.rewards.row_reward import RewardConfig
from open_instruct.verifiers.base import (
    UnknownVerifier,
    VerificationResult,
    VerifierConfig,
    VerifierFunction,
)

ARGS = SimpleNamespace(llm_judge_model="hosted_vllm/m", llm_judge_timeout=5, seed=9)


class Base(VerifierFunction):
    """Abstract still, so neither it nor what derives from it is collected: these tests leave nothing behind."""


class Fixed(Base):
    def __init__(self, config=None, name="Fixed", weight=1.0, score: float | None = 0.5, status="ok"):
        super().__init__(name, weight, config)
        self.result = VerificationResult(score, status=status)
        self.calls = []

    def __call__(self, tokenized_prediction, prediction, label, query=None, rollout_state=None):
        self.calls.append((tokenized_prediction, prediction, label, query, rollout_state))
        return self.result


def shout(content):
    return json.loads(content)["why"], json.loads(content)["mark"]


SPEC = JudgeSpec("tone", "Q: {input}\nA: {output}\nL: {label}", shout)
NOT_A_SPEC = 3


def only(monkeypatch, **groups):
    """Install exactly these entry points: group_name -> {name: "module:attribute"}."""

    def points(group):
        found = groups.get(group.removeprefix("open_instruct."), {})
        return [EntryPoint(name, value, group) for name, value in found.items()]

    monkeypatch.setattr(plugins, "entry_points", points)


def option(verifier, name):
    return getattr(verifier.verifier_config, name)


HERE = __name__


def test_config_copies_by_name_from_the_first_source():
    first, second = SimpleNamespace(seed=1), SimpleNamespace(seed=2, llm_judge_max_tokens=33, other=4)
    config = LMJudgeVerifierConfig.from_args(first, None, second)
    assert (config.seed, config.llm_judge_max_tokens, config.llm_judge_timeout) == (1, 33, 60)


def test_config_without_a_needed_option():
    from dataclasses import dataclass

    @dataclass
    class Needs(VerifierConfig):
        folder: str

    assert Needs.from_args(SimpleNamespace(folder="x")).folder == "x"
    with pytest.raises(ValueError, match="Needs needs 'folder'"):
        Needs.from_args(SimpleNamespace())


def test_flip_and_quality_are_there(monkeypatch):
    only(monkeypatch, verifiers={"flip": "flip_plugin.verifier:FlipVerifier"})
    verifiers = build_all_verifiers(ARGS)
    assert {"general-flip", "general-quality"} <= verifiers.keys()
    assert type(verifiers["general-flip"]).__name__ == "FlipVerifier"
    assert option(verifiers["general-flip"], "llm_judge_model") == "hosted_vllm/m"
    assert option(verifiers["general-quality"], "seed") == 9
    assert all(key == verifier.name.lower() for key, verifier in verifiers.items())
    pickle.loads(pickle.dumps(verifiers))


def test_this_projects_own_entry_points_load():
    assert {"general-flip", "general-quality", "constraints_satisfied"} <= build_all_verifiers(ARGS).keys()


def test_installed_verifiers_and_judges(monkeypatch):
    only(monkeypatch, verifiers={"fixed": f"{HERE}:Fixed"}, judges={"tone": f"{HERE}:SPEC"})
    verifiers = build_all_verifiers(SimpleNamespace(remap_verifier="General-Old=general-tone"), ARGS)
    assert isinstance(verifiers["fixed"], Fixed)
    assert isinstance(verifiers["general-tone"], LMJudgeVerifier)
    assert verifiers["general-old"] is verifiers["general-tone"]
    assert option(verifiers["general-tone"], "llm_judge_model") == "hosted_vllm/m"


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"verifiers": {"gone": "no.such.module:X"}}, "'gone'.*no.such.module.*cannot be imported"),
        ({"verifiers": {"gone": f"{HERE}:Missing"}}, "'gone'.*cannot be imported"),
        ({"verifiers": {"odd": f"{HERE}:NOT_A_SPEC"}}, "neither a subclass of VerifierFunction nor a function"),
        ({"judges": {"odd": f"{HERE}:NOT_A_SPEC"}}, "not a JudgeSpec"),
    ],
)
def test_unusable_plugins_name_themselves(monkeypatch, groups, words):
    only(monkeypatch, **groups)
    with pytest.raises(PluginError, match=words):
        build_all_verifiers(ARGS)


def test_two_verifiers_of_one_name(monkeypatch):
    class Twin(Fixed):
        def __init__(self, config):
            super().__init__(config, name="FIXED")

    monkeypatch.setattr(plugins, "load", lambda point: {"a": Fixed, "b": Twin}[point.name])
    only(monkeypatch, verifiers={"a": "x:a", "b": "x:b"})
    with pytest.raises(ValueError, match=r"two verifiers are called 'fixed'.*Fixed.*Twin"):
        build_all_verifiers(ARGS)


@pytest.mark.parametrize("remap", ["nonsense", "a=", "=b"])
def test_malformed_remap(monkeypatch, remap):
    only(monkeypatch)
    with pytest.raises(ValueError, match="old=new"):
        build_all_verifiers(SimpleNamespace(remap_verifier=remap))


def test_remap_to_nothing(monkeypatch):
    only(monkeypatch)
    with pytest.raises(UnknownVerifier, match="did you mean 'general-quality'"):
        build_all_verifiers(SimpleNamespace(remap_verifier="x=general-qualty"))


def test_names_are_checked_before_a_run():
    verifiers = {"general-flip": Fixed(), "general-quality": Fixed()}
    check_verifier_names(["General-FLIP", ["general-flip", "general-quality"]], verifiers)
    with pytest.raises(UnknownVerifier) as raised:
        check_verifier_names(["general-flip", "general-flipp", ["general-flip", "zzz"], "general-flipp"], verifiers)
    text = str(raised.value)
    assert "row 2 (and 1 more rows): no verifier is called 'general-flipp'; did you mean 'general-flip'?" in text
    assert "row 3: no verifier is called 'zzz'" in text
    assert "one of: general-flip, general-quality" in text


async def test_reward_is_the_weighted_sum():
    one, two = Fixed(name="one", score=0.5), Fixed(name="two", weight=2.0, score=0.25)
    config = RewardConfig({"one": one, "two": two}, verification_reward=10.0)
    state = {"messages": [], "finish_reason": "stop"}
    result = await config.score_sample("text", [1], ["a", "b"], ["ONE", "two"], "query", state)
    assert (result.reward, result.status) == (10.0, "ok")
    assert result.per_verifier.keys() == {"one", "two"}
    assert two.calls == [([1], "text", "b", "query", state)]
    single = await config.score_sample("text", [1], "a", "one", "query", None)
    assert single.reward == 5.0
    twice = await config.score_sample("text", [1], ["a", "b"], ["one", "one"], None)
    assert (twice.reward, list(twice.per_verifier)) == (10.0, ["one", "one#2"])


async def test_a_missing_score_makes_the_reward_missing():
    config = RewardConfig({"one": Fixed(score=0.5), "bad": Fixed(name="bad", score=None, status="unparsed")})
    result = await config.score_sample("text", [], ["a", "b"], ["one", "bad"])
    assert (result.reward, result.status) == (None, "unparsed")
    assert result.per_verifier["Fixed"].score == 0.5


async def test_weight_zero_cannot_make_the_reward_missing():
    watched = Fixed(name="watched", weight=0.0, score=None, status="judge_error")
    config = RewardConfig({"one": Fixed(score=0.5), "watched": watched})
    result = await config.score_sample("text", [], ["a", "b"], ["one", "watched"])
    assert (result.reward, result.status) == (5.0, "ok")
    assert result.per_verifier["watched"].score is None


async def test_zero_is_a_score():
    result = await RewardConfig({"one": Fixed(score=0.0)}).score_sample("text", [], "a", "one")
    assert (result.reward, result.status) == (0.0, "ok")


async def test_malformed_rows():
    config = RewardConfig({"one": Fixed()})
    with pytest.raises(UnknownVerifier):
        await config.score_sample("text", [], "a", "two")
    with pytest.raises(ValueError, match="2 verifiers"):
        await config.score_sample("text", [], ["a"], ["one", "one"])


async def test_sync_verifiers_do_not_block_the_loop():
    class Slow(Fixed):
        def __call__(self, *args, **kwargs):
            import time

            time.sleep(0.3)
            return self.result

    ticks = 0
    task = asyncio.create_task(Slow().async_call([], "x", "l"))
    while not task.done():
        await asyncio.sleep(0.01)
        ticks += 1
    assert ticks > 5


def test_prompt_without_extractor(monkeypatch):
    monkeypatch.setitem(judge_utils.JUDGE_PROMPT_MAP, "lost", "{input}")
    with pytest.raises(ValueError, match="'lost'"):
        judge_specs()
    monkeypatch.setitem(judge_utils.EXTRACTOR_MAP, "lost", lambda content: (None, 1.0))
    assert judge_specs()["lost"].response_format is None
