"""The recipes of training: what they pass to the trainer, profile by profile."""

import re

import pytest


def test_without_a_gpu_the_tiny_world_runs_and_says_so(tree):
    done = tree.ok("scripts/train/grpo_flip.sh")
    assert "No GPU found: running the embedded tiny world" in done.stderr
    rows = re.findall(r"datasets_prep\.tiny_world\.rows\n((?:.+\n)+?)pid=", done.stdout)
    assert [" ".join(r.split()[:8]) for r in rows] == [
        "--judge_type flip --split train --num_prompts 2048 --seed 1",
        "--judge_type flip --split eval --num_prompts 64 --seed 1",
    ]


def test_with_a_gpu_the_single_gpu_recipe_runs(tree):
    flags = tree.flags("scripts/train/grpo_flip.sh", FLIP_ENV="gpu")
    assert flags[flags.index("--model_name_or_path") + 1] == "Qwen/Qwen3-1.7B"
    assert "--single_gpu_mode" in flags


def test_an_unknown_profile_is_refused(tree):
    failed = tree.run("scripts/train/grpo_flip.sh", PROFILE="huge")
    assert failed.returncode == 2 and "choose tiny or single_gpu or paper" in failed.stderr


@pytest.mark.parametrize("profile", ["tiny", "single_gpu", "paper"])
def test_the_two_recipes_differ_in_the_rows_alone(profile, tree):
    flip = tree.flags("scripts/train/grpo_flip.sh", PROFILE=profile, OUTPUT_DIR="out")
    judge = tree.flags("scripts/train/grpo_llmjudge.sh", PROFILE=profile, OUTPUT_DIR="out")
    differ = {(a, b) for a, b in zip(flip, judge, strict=True) if a != b}
    names = {(f"{profile}_flip", f"{profile}_quality")}
    rows = {("yikeee/rlvr_general_chat_flip", "yikeee/rlvr_general_chat")}
    assert differ == (names if profile == "tiny" else names | rows)


def test_the_environment_chooses_model_rows_judge_and_folder(tree):
    flags = tree.flags(
        "scripts/train/grpo_flip.sh",
        "--seed",
        "7",
        PROFILE="paper",
        MODEL_NAME_OR_PATH="some/policy",
        DATASETS="mine.jsonl 1.0 other/rows 512",
        JUDGE_MODEL="openai/judge",
        OUTPUT_DIR="elsewhere",
    )
    text = " ".join(flags)
    assert "--model_name_or_path some/policy" in text and "--llm_judge_model openai/judge" in text
    assert "--dataset_mixer_list mine.jsonl 1.0 other/rows 512 --" in text
    assert "--dataset_mixer_eval_list mine.jsonl 8 --" in text
    assert "--output_dir elsewhere" in text and flags[-2:] == ["--seed", "7"]


def test_the_trainer_takes_the_place_of_the_shell(tree):
    tree.ok("scripts/env.sh")
    process = tree.start("scripts/train/grpo_flip.sh", PROFILE="paper")
    out, _ = process.communicate(timeout=60)
    assert f"pid={process.pid}" in out.splitlines()


PAPER = {
    "model_name_or_path": "allenai/Olmo-3-7B-Think-DPO",
    "chat_template_name": "olmo_thinker",
    "num_unique_prompts_rollout": 24,
    "num_samples_per_prompt_rollout": 8,
    "beta": 0.0,
    "learning_rate": 1e-6,
    "lr_scheduler_type": "constant",
    "clip_higher": 0.272,
    "truncated_importance_sampling_ratio_cap": 2.0,
    "advantage_normalization_type": "standard",
    "async_steps": 1,
    "max_prompt_token_length": 2048,
    "response_length": 16384,
    "pack_length": 18432,
    "temperature": 1.0,
    "stop_strings": ["</answer>"],
    "mask_truncated_completions": True,
    "verification_reward": 10.0,
    "deepspeed_stage": 3,
    "num_learners_per_node": [8],
    "vllm_num_engines": 16,
    "llm_judge_model": "hosted_vllm/Qwen/Qwen3-4B",
    "llm_judge_max_tokens": 2048,
    "llm_judge_max_context_length": 25000,
    "llm_judge_timeout": 3600,
    "llm_judge_temperature": 1.0,
    "kl_estimator": 2,
    "seed": 1,
    "total_episodes": 10_000_000,
    "dataset_mixer_list": ["yikeee/rlvr_general_chat_flip", "1.0"],
    "dataset_mixer_eval_list": ["yikeee/rlvr_general_chat_flip", "8"],
    "local_eval_every": 50,
}


def test_the_trainer_accepts_recipes_and_the_papers_values(tree):
    from open_instruct.config.command_line import parse_args

    parsed = {
        profile: parse_args(tree.flags("scripts/train/grpo_flip.sh", PROFILE=profile))
        for profile in ("tiny", "single_gpu", "paper")
    }
    assert {name: getattr(parsed["paper"], name) for name in PAPER} == PAPER
    assert parsed["tiny"].num_training_steps == 80
    later = parse_args(tree.flags("scripts/train/grpo_flip.sh", "--seed", "7", "--dry_run", PROFILE="tiny"))
    assert later.seed == 7 and later.dry_run
