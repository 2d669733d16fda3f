"""Imports go one way, the names that others rely on stay, and `import flip_plugin` is light."""

import importlib
import subprocess
import sys
import tomllib

import pytest

from tests import architecture


def test_imports_keep_the_order():
    assert not architecture.problems()


def test_an_import_against_the_order_is_reported(tmp_path):
    file = architecture.ROOT / "flip_plugin" / "text" / "echo.py"
    one = architecture.Import("flip_plugin.text.echo", "flip_plugin.judge.client", file, 3)
    assert (architecture.problem_of(one) or "").startswith("flip_plugin/text/echo.py:3: flip_plugin.text.echo imports")
    back = architecture.Import("datasets_prep.tag", "open_instruct.config.args", file, 1)
    assert (architecture.problem_of(back) or "").endswith("datasets_prep must not use open_instruct")
    there = architecture.Import("flip_plugin.judge.client", "flip_plugin.text.echo", file, 1)
    assert architecture.problem_of(there) is None
    assert architecture.circles([one, there]) == ["circle: flip_plugin.judge.client -> flip_plugin.text.echo"]


@pytest.mark.parametrize("folder", sorted(architecture.ORDERS))
def test_every_folder_of_an_order_exists(folder):
    package, *rest = folder.split(".")
    place = architecture.PACKAGES[package].joinpath(*rest)
    there = {path.stem for path in place.iterdir()}
    assert set(architecture.levels(architecture.ORDERS[folder])) <= there


PUBLIC = {
    "flip_plugin": "FlipReward f1_score normalize_answer",
    "flip_plugin.metrics": "f1_score normalize_answer get_similarity SIMILARITIES rouge_l unicode_f1",
    "flip_plugin.parsing": "parse_flip_reply parse_score_reply parse_best_index parse_better after_thinking",
    "flip_plugin.launch": "main",
    "flip_plugin.verifier": "FlipVerifier",
    "flip_plugin.serving": "JudgePool",
    "flip_plugin.adapters.trl": "flip_reward",
    "flip_plugin.adapters.verl": "compute_score",
    "flip_plugin.adapters.openrlhf": "reward_func",
    "open_instruct.grpo_fast": "main",
    "open_instruct.grpo_utils": "group_advantages policy_loss",
    "open_instruct.data_loader": "DataPreparationActor JudgeFailure PromptOrder",
    "open_instruct.vllm_utils": "EngineOptions EngineDied LLMRayActor create_vllm_engines",
    "open_instruct.ground_truth_utils": (
        "build_all_verifiers VerifierFunction VerificationResult LMJudgeVerifierConfig RewardConfig F1Verifier"
    ),
    "open_instruct.judge_utils": "JUDGE_PROMPT_MAP EXTRACTOR_MAP RESPONSE_FORMAT_MAP JudgeSpec Extractor Template",
    "open_instruct.verifiers.checked": "CheckedInWorker BadLabel",
    "open_instruct.verifiers.text": "without_thinking stated_answer",
    "open_instruct.dataset_transformation": (
        "CHAT_TEMPLATES TRANSFORM_FNS get_tokenizer load_dataset_mixer rlvr_tokenize_v1 rlvr_max_length_filter_v1"
    ),
    "open_instruct.rl_utils": "pack_mini_batches",
    "open_instruct.model_utils": "load_policy save_checkpoint",
    "open_instruct.logger_utils": "MetricsLogger setup_logging",
    "open_instruct.verifiers": "GSM8KVerifier MathVerifier IFEvalVerifier F1Verifier",
}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_stay_importable(module):
    found = importlib.import_module(module)
    assert not [name for name in PUBLIC[module].split() if not hasattr(found, name)]
    assert not [name for name in getattr(found, "__all__", ()) if not hasattr(found, name)]


def test_import_of_the_library_loads_nothing_heavy():
    code = "import flip_plugin, sys; print([m for m in ('torch', 'ray', 'vllm', 'litellm') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_every_folder_of_datasets_prep_is_in_its_wheel():
    folder = architecture.PACKAGES["datasets_prep"]
    listed = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {
        ".".join(("datasets_prep", *file.parent.relative_to(folder).parts)) for file in folder.rglob("__init__.py")
    }
    assert set(listed) == there
