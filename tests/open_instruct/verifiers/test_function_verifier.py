"""A plain function of (response, label) is a verifier: found by its entry point's name, missing where it fails."""

import math
import pickle
from importlib.metadata import EntryPoint

import pytest

from flip_plugin import plugins
from flip_plugin.plugins import PluginError
from flip_plugin.rows.verifier_names import VERIFIER_GROUP
from open_instruct.config.args import Args
from open_instruct.rewards.registry import build_all_verifiers
from open_instruct.rewards.row_reward import RewardConfig
from open_instruct.verifiers.base import FunctionVerifier


def ends_like(prediction, label):
    """A score, no score, or trouble, by what the response says."""
    if prediction == "trouble":
        raise KeyError("no such thing")
    if prediction == "unknown":
        return None
    return math.nan if prediction == "nan" else float(prediction.endswith(label))


NOT_A_VERIFIER = "just text"


def offer(monkeypatch, value):
    point = EntryPoint("ends_like", f"{__name__}:{value}", VERIFIER_GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == VERIFIER_GROUP else [])


async def test_it_is_found_and_scores(monkeypatch):
    offer(monkeypatch, "ends_like")
    verifier = build_all_verifiers(Args())["ends_like"]
    config = RewardConfig({"ends_like": pickle.loads(pickle.dumps(verifier))}, verification_reward=10.0)
    rewards = [(await config.score_sample(text, [], "end", "ends_like")).reward for text in ("the end", "no")]
    assert rewards == [10.0, 0.0]


@pytest.mark.parametrize(
    ("prediction", "status"), [("unknown", "no_score"), ("trouble", "verifier_error"), ("nan", "verifier_error")]
)
async def test_what_it_cannot_score_is_missing(prediction, status):
    config = RewardConfig({"ends_like": FunctionVerifier("ends_like", ends_like)})
    sample = await config.score_sample(prediction, [], "end", "ends_like")
    assert (sample.reward, sample.status) == (None, status)
    assert (sample.per_verifier["ends_like"].details or {})["error"]


def test_what_is_neither_class_nor_function_is_refused(monkeypatch):
    offer(monkeypatch, "NOT_A_VERIFIER")
    with pytest.raises(PluginError, match="neither a subclass of VerifierFunction nor a function"):
        build_all_verifiers(Args())
