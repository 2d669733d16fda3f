"""A plain function of (response, label) is a verifier: found by its entry point's name, missing where it fails."""

import math
import pickle
import threading
import time
from importlib.metadata import EntryPoint

import pytest

from flip_plugin import plugins
from flip_plugin.plugins import VERIFIER_GROUP, PluginError
from flip_plugin.rows.checks import DatasetError, validate_rows
from flip_plugin.rows.verifier_names import known_verifiers
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
    odd = {"nan": math.nan, "text": "0.5", "pair": (1, 2), "seven": 7, "huge": 10**400}
    return odd[prediction] if prediction in odd else float(prediction.endswith(str(label)))


async def later(prediction, label):
    """No plain function: it has to be awaited."""
    return 1.0


NOT_A_VERIFIER = "just text"
INSTANCE = FunctionVerifier("ends_like", ends_like)


def offer(monkeypatch, *values):
    points = [EntryPoint("ends_like", f"{__name__}:{value}", VERIFIER_GROUP) for value in values]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == VERIFIER_GROUP else [])


async def test_it_is_found_and_scores(monkeypatch):
    offer(monkeypatch, "ends_like")
    verifier = build_all_verifiers(Args())["ends_like"]
    config = RewardConfig({"ends_like": pickle.loads(pickle.dumps(verifier))}, verification_reward=10.0)
    rewards = [(await config.score_sample(text, [], "end", "ends_like")).reward for text in ("the end", "no")]
    assert rewards == [10.0, 0.0]


@pytest.mark.parametrize(
    ("prediction", "status"),
    [
        ("unknown", "no_score"),
        *((text, "verifier_error") for text in ("trouble", "nan", "text", "pair", "seven", "huge")),
    ],
)
async def test_what_it_cannot_score_is_missing(prediction, status):
    config = RewardConfig({"ends_like": FunctionVerifier("ends_like", ends_like)})
    sample = await config.score_sample(prediction, [], "end", "ends_like")
    assert (sample.reward, sample.status) == (None, status)
    assert (sample.per_verifier["ends_like"].details or {})["error"]


@pytest.mark.parametrize("value", ["NOT_A_VERIFIER", "INSTANCE", "later"])
def test_what_is_neither_class_nor_function_is_refused(monkeypatch, value):
    offer(monkeypatch, value)
    with pytest.raises(PluginError, match="neither a subclass of VerifierFunction nor a function"):
        build_all_verifiers(Args())


def test_two_functions_of_one_name_are_refused(monkeypatch):
    offer(monkeypatch, "ends_like", "ends_like")
    with pytest.raises(PluginError, match="'ends_like' is ambiguous"):
        build_all_verifiers(Args())
    with pytest.raises(DatasetError, match="'ends_like' is ambiguous"):
        known_verifiers()


def test_labels_of_any_type_pass(monkeypatch):
    offer(monkeypatch, "ends_like")
    for names in (build_all_verifiers(Args()), known_verifiers()):
        for label in (20, {"a": 1}, ["x"]):
            row = {"messages": [{"role": "user", "content": "Hi"}], "dataset": "ends_like", "ground_truth": label}
            validate_rows([row], names)


async def test_a_slow_function_moves_to_a_thread():
    threads = []

    def slow(prediction, label):
        threads.append(threading.get_ident())
        time.sleep(0.01)
        return 1.0

    verifier = FunctionVerifier("slow", slow)
    assert [(await verifier.async_call([], "a", "b")).score for _ in range(2)] == [1.0, 1.0]
    assert threads[0] == threading.get_ident() != threads[1]
