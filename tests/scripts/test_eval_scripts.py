"""The recipes of evaluations: what they pass to `flip eval`, profile by profile."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

RECIPES = ("rewardbench2", "best_of_n", "robustness", "length", "similarity", "agreement", "grpo_table", "report")
ASKING = ("rewardbench2", "best_of_n", "robustness")


def values(flags, name):
    """What follows a flag, up to the next one."""
    rest = flags[flags.index(name) + 1 :]
    return rest[: next((place for place, word in enumerate(rest) if word.startswith("--")), len(rest))]


@pytest.mark.parametrize("name", RECIPES)
def test_each_evaluation_has_a_recipe_for_both_profiles(name, tree):
    [tiny] = tree.evaluations(f"scripts/eval/{name}.sh", "--overwrite", OUTPUT_DIR="out", CHECKPOINTS="base=a flip=b")
    assert tiny[0] == name and tiny[-1] == "--overwrite"
    assert values(tiny, "--output")[0].startswith("out/")
    paper = tree.evaluations(f"scripts/eval/{name}.sh", PROFILE="paper")
    assert {call[0] for call in paper} == {name}
    assert all(values(call, "--output")[0].startswith("output/eval_paper/") for call in paper)


@pytest.mark.parametrize("name", ASKING)
def test_without_a_gpu_the_tiny_judges_are_asked(name, tree):
    [call] = tree.evaluations(f"scripts/eval/{name}.sh", OUTPUT_DIR="out")
    world = f"{tree.root}/datasets_prep/tiny_world/models"
    assert values(call, "--judges") == [f"{size}=vllm:{world}/judges/{size}" for size in ("small", "medium", "large")]
    assert values(call, "--data")[0].startswith("out/data/")


@pytest.mark.parametrize("name", ASKING)
def test_the_paper_s_judges_and_sampling(name, tree):
    for call in tree.evaluations(f"scripts/eval/{name}.sh", FLIP_ENV="gpu"):
        judges = values(call, "--judges")
        assert len(judges) == len({judge.partition("=")[0] for judge in judges}) == 13
        assert {judge.partition(":")[2].partition("/")[0] for judge in judges} == {
            "allenai",
            "meta-llama",
            "Qwen",
            "google",
            "mistralai",
        }
        assert values(call, "--seeds") == ["1", "2", "3", "4", "5"]
        assert values(call, "--max_tokens") == ["512"] and values(call, "--temperature") == ["0.7"]
        assert values(call, "--methods") == ["flip", "pointwise", "listwise", "pairwise"]


def test_the_environment_chooses_judges_methods_and_seeds(tree):
    [call] = tree.evaluations(
        "scripts/eval/rewardbench2.sh", JUDGES="a=openai/x b=vllm:y", METHODS="flip listwise", SEEDS="7"
    )
    assert values(call, "--judges") == ["a=openai/x", "b=vllm:y"]
    assert values(call, "--methods") == ["flip", "listwise"] and values(call, "--seeds") == ["7"]


def test_the_tiny_robustness_is_short_and_the_paper_s_is_whole(tree):
    [tiny] = tree.evaluations("scripts/eval/robustness.sh")
    assert values(tiny, "--limit") == ["48"] and "--attacks" not in tiny
    last = max(place for place, word in enumerate(tiny) if word == "--seeds")  # which wins
    assert values(tiny[last:], "--seeds") == ["1"]
    [asked] = tree.evaluations("scripts/eval/robustness.sh", SEEDS="3 4")
    assert values(asked, "--seeds") == ["3", "4"] and asked.count("--seeds") == 1
    [paper] = tree.evaluations("scripts/eval/robustness.sh", PROFILE="paper")
    assert "--limit" not in paper and paper.count("--seeds") == 1


def test_best_of_n_runs_each_benchmark_with_its_metric(tree):
    calls = tree.evaluations("scripts/eval/best_of_n.sh", PROFILE="paper", HUMAN_INTEREST="interest.json")
    assert [values(call, "--benchmark")[0] for call in calls] == ["ifeval", "math", "alpaca_eval", "human_interest"]
    assert ["--metric" in call for call in calls] == [False, False, True, True]
    assert values(calls[3], "--data") == ["interest.json"]
    [tiny] = tree.evaluations("scripts/eval/best_of_n.sh")
    module, _, function = values(tiny, "--metric")[0].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_the_tiny_table_trains_what_it_compares(tree):
    out = tree.ok("scripts/eval/grpo_table.sh", OUTPUT_DIR="out").stdout
    trained = re.findall(r"open_instruct\.grpo_fast\n(?:.+\n)*?--output_dir\n(.+)\n", out)
    assert trained == ["out/grpo_flip", "out/grpo_llmjudge"]
    assert "\nflip=out/grpo_flip/checkpoint\nllmjudge=out/grpo_llmjudge/checkpoint\n" in out


def test_the_paper_s_table_lets_its_policies_think_to_the_end(tree):
    """A task's own max_gen_toks wins over the model's, and loses against --gen_kwargs."""
    [call] = tree.evaluations("scripts/eval/grpo_table.sh", PROFILE="paper")
    assert values(call, "--gen_kwargs") == ["max_gen_toks=16384"]
    assert "max_model_len=18432" in values(call, "--model_args")


def test_all_of_them_and_the_report_last(tree):
    calls = tree.evaluations("scripts/eval/all.sh", OUTPUT_DIR="out")
    assert {call[0] for call in calls} == set(RECIPES) and calls[-1][0] == "report"
    names = [call[0] for call in calls]
    assert all(names.index("rewardbench2") < names.index(one) for one in ("length", "similarity", "agreement"))
    some = tree.evaluations("scripts/eval/all.sh", EVALUATIONS="robustness")
    assert [call[0] for call in some] == ["robustness", "report"]


def test_a_failed_evaluation_is_named_and_the_others_run(tree):
    tree.ok("scripts/env.sh")
    python = tree.root / ".venv/bin/python"
    python.write_text(python.read_text() + 'case "$*" in *robustness*) exit 1 ;; esac\n')
    done = tree.run("scripts/eval/all.sh", OUTPUT_DIR="out", EVALUATIONS="robustness rewardbench2")
    assert done.returncode == 1 and "failed: robustness;" in done.stderr
    assert "rewardbench2" in done.stdout and "report" in done.stdout


def test_an_unknown_profile_of_evaluations_is_refused(tree):
    failed = tree.run("scripts/eval/report.sh", PROFILE="huge")
    assert failed.returncode == 2 and "choose tiny or paper" in failed.stderr


def test_recipes_are_short():
    for file in (ROOT / "scripts/eval").rglob("*.sh"):
        assert len(file.read_text().splitlines()) < 60, file
