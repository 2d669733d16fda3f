"""GRPOTrainer for three steps against a real judge server (vLLM), through its failures, to its end."""

import pytest
from test_adapter_trl import POLICY, make_trainer

from flip_plugin import FlipReward
from flip_plugin.adapters.trl import flip_reward
from flip_plugin.judge.call_log import read_calls
from flip_plugin.serving.options import ServerOptions
from flip_plugin.serving.server import JudgeServer

JUDGE = POLICY.parent / "judge"


@pytest.fixture
def server(tmp_path):
    """Started, not waited for: TRL's import takes as long."""
    pytest.importorskip("trl")
    options = ServerOptions(str(JUDGE), on_cpu=True, max_model_len=1024, kv_cache_memory_bytes=2**28)
    server = JudgeServer(options, str(tmp_path / "judge.log"))
    yield server
    server.stop()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_whose_judge_fails_recovers_and_is_killed(server, judge, tmp_path, monkeypatch):
    """Step 1: one of two servers refuses what it gets. Step 2: the other does all. Step 3: it was killed."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import pandas
    import torch
    from transformers import TrainerCallback

    again: list[float | None] = []
    weights: list[torch.Tensor] = []

    class Turns(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            weights.append(torch.cat([p.detach().flatten().clone() for p in trainer.model.parameters()]))
            if state.global_step == 1:
                reward.reward.client.set_api_bases(server.url())
            if state.global_step == 2:
                library = FlipReward(f"hosted_vllm/{JUDGE}", server.url(), max_tokens=96)
                texts = [completion[0]["content"] for completion in trainer._logs["completion"]]
                again.extend(r.score for r in library.score_batch(list(trainer._logs["prompt"]), texts))
                server.stop()

    judge.answers = [(400, "out of order")]  # a 4xx is not tried again
    bases = [judge.base, server.url()]
    reward = flip_reward(f"hosted_vllm/{JUDGE}", bases, max_tokens=96, max_attempts=1, record=tmp_path / "calls")
    trainer = make_trainer(reward, tmp_path / "out", per_device_train_batch_size=8, log_completions=True)
    trainer.add_callback(Turns())
    server.wait_ready(240)
    trainer.train()

    steps = [line for line in trainer.state.log_history if "flip/invalid_frac" in line]
    tables = [pandas.read_parquet(tmp_path / "out" / "completions" / f"completions_{n:05d}.parquet") for n in (1, 2, 3)]
    missing = [int(table["flip"].isna().sum()) for table in tables]
    assert 0 < missing[0] < 8 and missing[1:] == [0, 8]
    assert [step["flip/invalid_frac"] for step in steps] == [n / 8 for n in missing]

    # What TRL logged is what the library gives for the same completions, and what the judge's records say.
    assert tables[1]["flip"].tolist() == pytest.approx(again)
    logged = [score for table in tables for score in table["flip"].dropna()]
    recorded = [call["score"] for call in read_calls(tmp_path / "calls") if call["score"] is not None]
    assert sorted(logged) == pytest.approx(sorted(recorded)) and min(logged) > 0
    for step, table in zip(steps[:2], tables[:2], strict=True):
        assert step["rewards/flip/mean"] == step["reward"] == pytest.approx(table["flip"].mean())
    assert steps[2]["reward"] is None

    # A missing score moves nothing: no advantage, and no loss where there is no score at all.
    for table in tables:
        absent = table["flip"].isna()
        assert (table["advantage"][absent] == 0).all()
        assert set(table["flip_status"][absent]) <= {"judge_error"}
    assert trainer.state.global_step == 3 and steps[2]["loss"] == 0
    assert torch.isfinite(weights[2]).all() and not torch.equal(weights[0], weights[1])
