"""The published recipe, and where a run differs from it: what `--dry_run` prints for the profile `paper`.

Facts from ``scripts/train/grpo_flip.sh`` of yikee/FLIP at ``1f1c235`` (its twin for the LLM judge differs in
the data set and the experiment's name), and defaults of that commit's trainer on which the script relies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, NamedTuple

from open_instruct.config.args import Args

ROWS = "yikeee/rlvr_general_chat_flip"

#: Every flag of the script, with its value.
SCRIPT: dict[str, Any] = {
    "exp_name": "grpo_general_flip_think_4b",
    "beta": 0.0,
    "async_steps": 1,
    "truncated_importance_sampling_ratio_cap": 2.0,
    "num_samples_per_prompt_rollout": 8,
    "num_unique_prompts_rollout": 24,
    "num_mini_batches": 1,
    "num_epochs": 1,
    "learning_rate": 1e-6,
    "per_device_train_batch_size": 1,
    "kl_estimator": 2,
    "dataset_mixer_list": [ROWS, "1.0"],
    "dataset_mixer_list_splits": ["train"],
    "dataset_mixer_eval_list": [ROWS, "8"],
    "dataset_mixer_eval_list_splits": ["train"],
    "max_prompt_token_length": 2048,
    "response_length": 16384,
    "pack_length": 18432,
    "model_name_or_path": "allenai/Olmo-3-7B-Think-DPO",
    "chat_template_name": "olmo_thinker",
    "stop_strings": ["</answer>"],
    "non_stop_penalty": False,
    "temperature": 1.0,
    "total_episodes": 10_000_000,
    "deepspeed_stage": 3,
    "num_learners_per_node": [8],
    "backend_timeout": 3600,
    "vllm_num_engines": 16,
    "vllm_tensor_parallel_size": 1,
    "llm_judge_model": "hosted_vllm/Qwen/Qwen3-4B",
    "llm_judge_timeout": 3600,
    "llm_judge_max_tokens": 2048,
    "llm_judge_max_context_length": 25000,
    "lr_scheduler_type": "constant",
    "apply_verifiable_reward": True,
    "seed": 1,
    "local_eval_every": 50,
    "save_freq": 50,
    "checkpoint_state_freq": 50,
    "gradient_checkpointing": True,
    "with_tracking": True,
    "vllm_enable_prefix_caching": True,
    "clip_higher": 0.272,
    "keep_last_n_checkpoints": -1,
    "mask_truncated_completions": True,
    "oe_eval_max_length": 16384,
    "code_api_url": "a private service",
    "try_launch_beaker_eval_jobs_on_weka": True,
    "oe_eval_tasks": "ifeval, bbh, gpqa, minerva_math, minerva_math_500",
    "eval_on_step_0": True,
    "oe_eval_beaker_image": "oe-eval-beaker/oe_eval_auto",
    "output_dir": "/output/olmo3-7b-rlzero-general/checkpoints",
}

#: Defaults of the published trainer (and what it hard-codes) that the script leaves as they are.
IMPLIED: dict[str, Any] = {
    "advantage_normalization_type": "standard",
    "inflight_updates": False,
    "filter_zero_std_samples": True,
    "active_sampling": False,
    "verification_reward": 10.0,
    "clip_lower": 0.2,
    "loss_fn": "dapo",
    "loss_denominator": "token",
    "vllm_top_p": 1.0,
    "vllm_gpu_memory_utilization": 0.9,
    "llm_judge_temperature": 1.0,
    "llm_judge_structured_output": False,
    "llm_judge_thinking": True,
    "weight_decay": 0.0,
    "warmup_ratio": 0.0,
    "max_grad_norm": 1.0,
    "fused_optimizer": False,
    "deepspeed_zpg": 8,
    "load_ref_policy": True,
    "save_traces": False,
    "wandb_project_name": "open_instruct_internal",
}

#: Why a value of the `paper` profile is not the published one.
REASONS: dict[str, str] = {
    "exp_name": "a name, nothing else",
    "output_dir": "a folder of this machine",
    "dataset_mixer_list": "the rows that were given (DATASETS, or the twin's tagging)",
    "dataset_mixer_eval_list": "rows of the training set, as published",
    "model_name_or_path": "the policy that was given (MODEL_NAME_OR_PATH)",
    "llm_judge_model": "the judge that was given (JUDGE_MODEL)",
    "with_tracking": "needs an account: --with_tracking True, or WANDB_MODE=offline",
    "fused_optimizer": "the same arithmetic in one kernel",
    "save_traces": "every rollout can be looked at; costs disk alone",
    "wandb_project_name": "theirs is internal",
    "load_ref_policy": "with --beta 0 no reference is loaded either way",
    "vllm_enable_prefix_caching": "see --help",
    "oe_eval_max_length": "evaluation jobs on one institute's cluster",
    "code_api_url": "a private service for rewards from code, which FLIP does not use",
    "try_launch_beaker_eval_jobs_on_weka": "evaluation jobs on one institute's cluster",
    "oe_eval_tasks": "evaluation jobs on one institute's cluster",
    "oe_eval_beaker_image": "evaluation jobs on one institute's cluster",
}


#: Differences in what the code does, which no flag brings back.
BEHAVIOUR: tuple[str, ...] = (
    "The instruction to be recovered is the whole last user turn, not the last line that starts with `user`.",
    "A failed judgement is a missing value, counted and left out of its group; published: a reward of 0.",
    "A response cut off in its thoughts is not shown to the judge; published: it is, and moves the group.",
    "Replies of the judge are read as JSON wherever it stands; published: a fenced or indented reply loses its score.",
    "The judge's prompts are our own; --llm_judge_prompts FOLDER takes the published ones.",
    "Evaluation is one sample a prompt under the training temperature; batches are taken in data order.",
)


class Difference(NamedTuple):
    """A flag whose value here is not the published one; `ours` is None where there is no such flag."""

    name: str
    published: Any
    ours: Any
    reason: str


def differences(args: Args) -> Iterator[Difference]:
    """Where `args` differ from the published run, script first; a value without a reason was chosen by the user."""
    known = {f.name for f in fields(Args)}
    for name, published in (SCRIPT | IMPLIED).items():
        ours = getattr(args, name) if name in known else None
        if name not in known or ours != published:
            yield Difference(name, published, ours, REASONS.get(name, "given for this run"))


def describe(args: Args) -> str:
    """The comparison as text: a count, a row for each difference with its reason, and differences without a flag."""
    changed = list(differences(args))
    same = len(SCRIPT) + len(IMPLIED) - len(changed)
    rows = [("flag", "published", "here", "why")]
    rows += [(one.name, _text(one.published), _text(one.ours), one.reason) for one in changed]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    table = (
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
    )
    return "\n".join(
        [
            f"Compared with the published script (yikee/FLIP 1f1c235): {len(SCRIPT)} flags and {len(IMPLIED)} defaults "
            f"that it relies on, {same} as published, {len(changed)} not:",
            *(f"  {line}" for line in table),
            "Differences that no flag stands for:",
            *(f"  {line}" for line in BEHAVIOUR),
        ]
    )


def _text(value: Any) -> str:
    if value is None:
        return "-"
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 48 else text[:45] + "..."
