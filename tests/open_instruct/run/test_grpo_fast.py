"""What is wrong with flags, rows or judge stops a run before Ray or a model is touched, with a clear sentence."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from datasets_prep.tiny_world.rows import make_rows
from open_instruct import grpo_fast
from open_instruct.config.args import Args, FlagError
from open_instruct.run.judge import check_external, check_local_model, launch_judge

MODELS = Path(__file__).parents[3] / "datasets_prep" / "tiny_world" / "models"


def run_main(monkeypatch, capsys, tmp_path, rows, **overrides) -> str:
    """Run the trainer's entry point in this process; returns what it said when it gave up."""
    data = tmp_path / "train.jsonl"
    data.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    flags = {
        "model_name_or_path": MODELS / "policy",
        "llm_judge_model": f"hosted_vllm/{MODELS / 'judge'}",
        "dataset_mixer_list": f"{data} 1.0",
        "max_prompt_token_length": 64,
        "total_episodes": 640,
        "output_dir": tmp_path / "out",
        **overrides,
    }
    argv = [word for name, value in flags.items() for word in (f"--{name}", *str(value).split())]
    monkeypatch.setattr(sys, "argv", ["grpo_fast", *argv])
    monkeypatch.delenv("HOSTED_VLLM_API_BASE", raising=False)

    def no_ray(*args, **kwargs):
        raise AssertionError("Ray was started")

    monkeypatch.setattr("open_instruct.run.cluster.start_ray", no_ray)
    with pytest.raises(SystemExit) as stopped:
        grpo_fast.main()
    assert stopped.value.code not in (0, None)
    assert not (tmp_path / "out" / "metrics.jsonl").exists()
    return capsys.readouterr().err


@pytest.fixture
def good_rows():
    return make_rows("train", 4, "flip", seed=1)


def test_good_rows_get_as_far_as_ray(monkeypatch, capsys, tmp_path, good_rows):
    with pytest.raises(AssertionError, match="Ray was started"):
        run_main(monkeypatch, capsys, tmp_path, good_rows)


def test_unknown_verifier_names_row_and_what_was_meant(monkeypatch, capsys, tmp_path, good_rows):
    good_rows[2]["dataset"] = "general-flipp"
    said = run_main(monkeypatch, capsys, tmp_path, good_rows)
    assert "general-flipp" in said and "general-flip" in said and "row 3" in said


def test_empty_prompt(monkeypatch, capsys, tmp_path, good_rows):
    good_rows[1]["messages"] = [{"role": "user", "content": "  "}]
    said = run_main(monkeypatch, capsys, tmp_path, good_rows)
    assert "row 2" in said and "empty" in said


def test_empty_target(monkeypatch, capsys, tmp_path, good_rows):
    good_rows[0]["ground_truth"] = ""
    assert "ground_truth" in run_main(monkeypatch, capsys, tmp_path, good_rows)


def test_malformed_line(monkeypatch, capsys, tmp_path, good_rows):
    said = run_main(monkeypatch, capsys, tmp_path, [*good_rows[:2], '{"messages": [', *good_rows[2:]])
    assert "train.jsonl" in said and "3" in said


def test_policy_path_that_does_not_exist(monkeypatch, capsys, tmp_path, good_rows):
    said = run_main(monkeypatch, capsys, tmp_path, good_rows, model_name_or_path=tmp_path / "nowhere")
    assert "--model_name_or_path" in said and "does not exist" in said


def test_judge_path_that_does_not_exist(monkeypatch, capsys, tmp_path, good_rows):
    said = run_main(monkeypatch, capsys, tmp_path, good_rows, llm_judge_model=f"hosted_vllm/{tmp_path}/nowhere")
    assert "--llm_judge_model" in said and "does not exist" in said


def test_unknown_reported_verifier(monkeypatch, capsys, tmp_path, good_rows):
    said = run_main(monkeypatch, capsys, tmp_path, good_rows, report_verifiers="no_such_checker")
    assert "no_such_checker" in said and "constraints_satisfied" in said


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("pack_length", 100, "--pack_length"),
        ("num_samples_per_prompt_rollout", 1, "2 or more"),
        ("num_samples_per_prompt_rollout", 0, "2 or more"),
        ("num_unique_prompts_rollout", 0, "--num_unique_prompts_rollout must be 1 or more"),
        ("per_device_train_batch_size", 0, "--per_device_train_batch_size must be 1 or more"),
        ("llm_judge_num_engines", 0, "--llm_judge_num_engines must be 1 or more"),
        ("vllm_top_p", 0, "--vllm_top_p"),
        ("eval_temperature", -1, "--eval_temperature must be 0 (greedy) or more"),
        ("rho_mask_tv_divergence", True, "--rho_mask_upper_bound"),
        ("total_episodes", 3, "less than one step"),
        ("llm_judge_model", "qwen", "PROVIDER/MODEL"),
        ("no_such_flag", 1, "no_such_flag"),
        ("advantage_normalization_type", "median", "median"),
    ],
)
def test_bad_flags(monkeypatch, capsys, tmp_path, good_rows, flag, value, said):
    assert said in run_main(monkeypatch, capsys, tmp_path, good_rows, **{flag: value})


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(FlagError, match=r"config\.json"):
        check_local_model(str(tmp_path), "--llm_judge_model")
    check_local_model("Qwen/Qwen3-4B", "--llm_judge_model")  # an id of the hub passes


@pytest.fixture
def outside_server():
    """A server that lists one model, as any OpenAI-compatible one does."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path == "/v1/models"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(json.dumps({"data": [{"id": "served-judge"}]} if found else {}).encode())

        def log_message(self, format, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_outside_server_that_serves_another_model(outside_server):
    check_external("served-judge", [f"{outside_server}/v1"], timeout=5)
    with pytest.raises(RuntimeError, match=r"served-judge.*not 'other'"):
        check_external("other", [f"{outside_server}/v1"], timeout=5)


def test_outside_server_with_a_wrong_address(outside_server):
    with pytest.raises(RuntimeError, match="must end in /v1"):
        check_external("served-judge", [outside_server], timeout=5)


def test_outside_server_that_is_not_there():
    with pytest.raises(RuntimeError, match=r"No judge server answers at http://127\.0\.0\.1:9/v1"):
        check_external("served-judge", ["http://127.0.0.1:9/v1"], timeout=0.1)


def test_a_judge_that_sleeps_is_not_served_to_other_nodes():
    args = Args(single_gpu_mode=True, async_steps=0)
    with pytest.raises(FlagError, match="--async_steps 1"):
        launch_judge(args, on_cpu=False, gpus_per_replica=0.3, key="a key: there are several nodes")


def test_relative_model_paths_are_found_by_actors(monkeypatch, capsys, tmp_path, good_rows):
    monkeypatch.chdir(MODELS.parent)
    judge = "hosted_vllm/models/judge"
    with pytest.raises(AssertionError, match="Ray was started"):
        run_main(monkeypatch, capsys, tmp_path, good_rows, model_name_or_path="models/policy", llm_judge_model=judge)
    flags = json.loads((tmp_path / "out" / "config.json").read_text())["flags"]
    assert flags["model_name_or_path"] == str(MODELS / "policy")
    assert flags["llm_judge_model"] == f"hosted_vllm/{MODELS / 'judge'}"

    args = Args(model_name_or_path="some/id", llm_judge_model=judge)
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", "http://127.0.0.1:9/v1")
    grpo_fast.make_paths_absolute(args)
    assert (args.model_name_or_path, args.llm_judge_model) == ("some/id", judge)


def test_run_by_its_path_it_shadows_no_module():
    """Python puts the script's folder first in sys.path, with its `data`, `config`, `run`, ... in it."""
    code = f"""
import runpy, sys
sys.path.insert(0, {str(Path(grpo_fast.__file__).parent)!r})
sys.argv = [{grpo_fast.__file__!r}, "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    from importlib.util import find_spec
    print([name for name in ("rollout", "learner", "grpo_utils", "open_instruct") if find_spec(name)])
"""
    ended = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("usage: python -m open_instruct.grpo_fast")
    assert ended.stdout.splitlines()[-1] == "['open_instruct']"
