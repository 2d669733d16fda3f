"""verl: the documented call, and verl's own loader, reward manager and validation metrics where it is installed."""

import asyncio
import importlib.util
import inspect
import json
from pathlib import Path

import numpy as np
import pytest

from flip_plugin.adapters import verl as adapter
from flip_plugin.judge.call_log import read_calls

POLICY = Path(__file__).parents[3] / "datasets_prep" / "tiny_world" / "models" / "policy"
ASKED = "Write a haiku\nabout user: root"
KEYS = {*("score", "flip_score", "flip_missing", "flip_echo", "flip_status", "flip_inferred_instruction", "flip_error")}


@pytest.fixture
def options(judge, monkeypatch):
    """As verl hands them over from custom_reward_function.reward_kwargs."""
    monkeypatch.delenv("FLIP_API_BASE", raising=False)
    judge.infers(ASKED)
    return {"judge_model": "hosted_vllm/m", "api_base": judge.base, "timeout": 5, "max_attempts": 1}


def call(options, truth=ASKED, response="Leaves", extra_info=None):
    """Keywords as in verl's reward managers."""
    return adapter.compute_score(
        data_source="d", solution_str=response, ground_truth=truth, extra_info=extra_info, **options
    )


async def test_a_score_with_its_details(options, judge, tmp_path):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    messages = np.array([*turns, {"role": "user", "content": ASKED}], dtype=object)
    extra = {"messages": messages, "num_turns": 2, "rollout_reward_scores": {}}
    row = await call({**options, "record": str(tmp_path)}, extra_info=extra)
    assert row.keys() == KEYS
    assert (row["score"], row["flip_score"], row["flip_missing"], row["flip_status"]) == (1.0, 1.0, 0, "ok")
    assert row["flip_echo"] == 0.0 and row["flip_inferred_instruction"] == ASKED
    shown = judge.requests[0]["messages"][1]["content"]
    assert "user: Hi\n\nassistant: Yes?" in shown and ASKED not in shown
    assert [line["score"] for line in read_calls(tmp_path)] == [1.0]
    json.dumps(row)  # verl dumps generations as JSON


async def test_the_instruction_from_messages_alone(options):
    row = await call(options, truth="", extra_info={"prompt": [{"role": "user", "content": ASKED}]})
    assert row["score"] == 1.0


@pytest.mark.parametrize(
    ("truth", "response", "answer", "status"),
    [
        (ASKED, "Leaves", (500, "down"), "judge_error"),
        (ASKED, "Leaves", "no JSON at all", "unparsed"),
        (ASKED, "", None, "empty_response"),
        ("", "Leaves", None, "no_target"),
        ({"answer": 4}, "Leaves", None, "no_target"),
    ],
)
async def test_a_missing_score_is_a_constant_and_flagged(options, judge, truth, response, answer, status, monkeypatch):
    if answer:
        judge.answers = [answer]
    row = await call(options, truth, response)
    assert row.keys() == KEYS, "verl takes the names from a batch's first row"
    assert (row["score"], row["flip_score"], row["flip_missing"], row["flip_status"]) == (0.0, None, 1, status)
    assert row["flip_error"]
    monkeypatch.setenv("FLIP_MISSING_SCORE", "0.3")
    assert (await call(options, truth, response))["score"] == 0.3
    assert (await call({**options, "missing_score": 0.1}, truth, response))["score"] == 0.1


async def test_verls_own_router_is_the_judges_server(options, judge):
    del options["api_base"]
    router = judge.base.removeprefix("http://").removesuffix("/v1")
    row = await call({**options, "reward_router_address": router, "reward_model_tokenizer": object()})
    assert row["score"] == 1.0


async def test_wrong_options_stop_the_run(options):
    with pytest.raises(TypeError, match="temprature"):
        await call({**options, "temprature": 1})
    with pytest.raises(ValueError, match="missing_score"):
        await call({**options, "missing_score": "nan"})


@pytest.mark.parametrize("name", ["compute_score", "compute_score_sync"])
def test_loaded_by_path_as_verl_does(options, name):
    """A module that is in no sys.modules; verl asks inspect whether to await."""
    spec = importlib.util.spec_from_file_location("custom_module_1", adapter.__file__)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, name)
    assert inspect.iscoroutinefunction(function) == (name == "compute_score")
    result = function("d", "Leaves", ASKED, {}, **options)
    row = asyncio.run(result) if inspect.isawaitable(result) else result
    assert row["score"] == 1.0


class _Tokenizer:
    def decode(self, ids, skip_special_tokens):
        assert skip_special_tokens
        return "Leaves fall" if len(ids) else ""


def _config(options, name="compute_score", manager="naive"):
    from omegaconf import OmegaConf  # ty: ignore[import-not-found]

    function = {"path": "pkg://flip_plugin.adapters.verl", "name": name, "reward_kwargs": options}
    manager = {"source": "register", "name": manager}
    return OmegaConf.create(
        {"reward": {"num_workers": 1, "custom_reward_function": function, "reward_manager": manager}}
    )


def _batch(rows):
    import torch
    from verl import DataProto  # ty: ignore[import-not-found]

    size = len(rows)
    columns = {
        "data_source": ["tiny"] * size,
        "reward_model": [{"style": "rule", "ground_truth": truth} for truth, _ in rows],
        "extra_info": [{"messages": [{"role": "user", "content": truth}]} for truth, _ in rows],
    }
    return DataProto.from_dict(
        tensors={
            "prompts": torch.ones(size, 3, dtype=torch.long),
            "responses": torch.full((size, 4), 40),
            "attention_mask": torch.tensor([[1] * 3 + [1] * n + [0] * (4 - n) for _, n in rows]),
        },
        non_tensors={name: np.array(values, dtype=object) for name, values in columns.items()},
    )


@pytest.mark.parametrize(("name", "manager"), [("compute_score", "naive"), ("compute_score_sync", "naive")])
async def test_verls_reward_manager_and_metrics(options, judge, name, manager):
    """verl 0.9.1: loader, manager, the scores' tensor, extra columns, and what validation makes of them."""
    pytest.importorskip("verl")
    from verl.trainer.ppo.metric_utils import process_validation_metrics  # ty: ignore[import-not-found]
    from verl.trainer.ppo.reward import load_reward_manager  # ty: ignore[import-not-found]

    judge.handler = lambda body: (500, "down") if len(judge.requests) == 2 else judge.answers[0]
    rows = [(ASKED, 4), (ASKED, 2), (ASKED, 0)]
    data = _batch(rows)
    loaded = load_reward_manager(_config(options, name, manager), _Tokenizer())
    out = [await loaded.run_single(data[i : i + 1]) for i in range(len(rows))]
    assert [o["reward_score"] for o in out] == [1.0, 0.0, 0.0]
    scores = type(loaded).assemble_rm_scores(data, [o["reward_score"] for o in out])
    assert scores.shape == (3, 4) and scores[0].tolist() == [0, 0, 0, 1] and scores[1:].sum() == 0
    infos = [o["reward_extra_info"] for o in out]
    columns = {key: np.array([info[key] for info in infos]).tolist() for key in infos[0]}
    metrics = process_validation_metrics(["tiny"] * 3, ["one"] * 3, columns)["tiny"]
    assert metrics["flip_missing"]["mean@3"] == pytest.approx(2 / 3)
    assert metrics["score"]["mean@3"] == pytest.approx(1 / 3)
    assert metrics["flip_score"]["mean@1"] == 1.0, "over the judged rows alone"
    assert "flip_status" not in metrics


def test_verls_reward_workers_in_ray(options):
    """The flags of docs/verl.md through verl's configuration, its reward workers, and its manager `remote`."""
    pytest.importorskip("verl")
    import ray
    from hydra import compose, initialize_config_module  # ty: ignore[import-not-found]
    from verl.experimental.reward_loop import RewardLoopManager  # ty: ignore[import-not-found]
    from verl.trainer.ppo.reward import load_reward_manager  # ty: ignore[import-not-found]

    function = "reward.custom_reward_function"
    flags = [
        f"{function}.path=pkg://flip_plugin.adapters.verl",
        f"{function}.name=compute_score",
        f"+{function}.reward_kwargs.judge_model=hosted_vllm/m",
        f"+{function}.reward_kwargs.api_base={options['api_base']}",
        f"actor_rollout_ref.model.path={POLICY}",
        "reward.num_workers=2",
    ]
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=flags)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        out = RewardLoopManager(config).compute_rm_score(_batch([(ASKED, 4), ("", 4), (ASKED, 2)]))
        columns = {name: out.non_tensor_batch[name].tolist() for name in ("flip_missing", "flip_status", "flip_error")}
        assert columns["flip_status"] == ["ok", "no_target", "ok"], columns["flip_error"]
        assert columns["flip_missing"] == [0, 1, 0]
        assert out.batch["rm_scores"].sum(-1).tolist() == [1.0, 0.0, 1.0]

        async def by_manager_remote():
            loaded = load_reward_manager(_config(options, "compute_score_sync", "remote"), _Tokenizer())
            return await loaded.run_single(_batch([(ASKED, 4)]))

        assert asyncio.run(by_manager_remote())["reward_score"] == 1.0
    finally:
        ray.shutdown()
