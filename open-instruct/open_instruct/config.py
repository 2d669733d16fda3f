"""The flags of a run, grouped as `--help` shows them; names and meanings are Open Instruct's.

Each dataclass is a group; the field's `help` is what the user reads. What cannot work together is
refused in `check`, before anything is loaded, in terms of the flags that were typed.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, fields
from typing import Any, Literal


def flag(default: Any, help: str) -> Any:
    """A dataclass field with a help text."""
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


class FlagError(ValueError):
    """A flag, or a pair of flags, that the run cannot honour; the message says what to do."""


@dataclass
class ModelConfig:
    """The policy."""

    model_name_or_path: str = flag("", "policy to train: a Hugging Face id or a local folder")
    model_revision: str | None = flag(None, "branch, tag or commit of the policy on the hub")
    tokenizer_name_or_path: str | None = flag(None, "tokenizer, where it is not the policy's own")
    chat_template_name: str | None = flag(None, "a built-in chat template instead of the tokenizer's own")
    attn_implementation: str | None = flag(None, "transformers attention: sdpa, eager or flash_attention_2")
    gradient_checkpointing: bool = flag(False, "recompute activations in the backward pass: less memory, more time")
    model_dtype: Literal["auto", "float32", "bfloat16"] = flag(
        "auto", "dtype of learner and engines: auto is bfloat16 on GPUs and float32 on CPUs"
    )


@dataclass
class DataConfig:
    """Which rows, and how they become prompts."""

    dataset_mixer_list: list[str] = flag(
        [], "pairs: data set (HF id, .jsonl, .parquet or folder) and share (1.0) or count"
    )
    dataset_mixer_list_splits: list[str] = flag(["train"], "split of each training set, or one for all")
    dataset_mixer_eval_list: list[str] = flag([], "the same pairs for evaluation; empty: no evaluation")
    dataset_mixer_eval_list_splits: list[str] = flag(["test"], "split of each evaluation set, or one for all")
    dataset_transform_fn: list[str] = flag(
        ["rlvr_tokenize_v1", "rlvr_max_length_filter_v1"], "how rows become prompts: names in TRANSFORM_FNS"
    )
    max_prompt_token_length: int = flag(256, "longer prompts are left out, and counted")


@dataclass
class RolloutConfig:
    """Sampling, groups and packing."""

    num_unique_prompts_rollout: int = flag(16, "prompts a step")
    num_samples_per_prompt_rollout: int = flag(4, "samples a prompt: the group")
    async_steps: int = flag(1, "how many steps generation may be ahead of learning; 0 waits for each weight sync")
    inflight_updates: bool = flag(True, "swap weights while samples are being generated, instead of waiting for them")
    response_length: int = flag(256, "longest response in tokens")
    pack_length: int = flag(512, "length of a packed row in tokens; at least prompt + response")
    temperature: float = flag(1.0, "sampling temperature")
    vllm_top_p: float = flag(1.0, "nucleus sampling")
    eval_temperature: float | None = flag(None, "temperature in evaluations; not given: that of training")
    stop_strings: list[str] = flag([], "strings that end a response (kept in it)")
    advantage_normalization_type: Literal["standard", "centered"] = flag(
        "centered", "centered: r - mean; standard: divided by the group's deviation, too"
    )
    filter_zero_std_samples: bool = flag(True, "leave out groups whose rewards are all equal: they teach nothing")
    mask_truncated_completions: bool = flag(False, "no loss on responses that hit the length limit")
    save_traces: bool = flag(True, "write every rollout to OUTPUT_DIR/rollouts")


@dataclass
class RewardConfigFlags:
    """Verifiers and the judge."""

    apply_verifiable_reward: bool = flag(True, "the reward comes from the rows' verifiers (nothing else is offered)")
    verification_reward: float = flag(10.0, "what a score of 1 is worth")
    remap_verifier: str | None = flag(None, "old=new: use another verifier for a tag")
    report_verifiers: list[str] = flag([], "verifiers that are computed and logged, never rewarded")
    llm_judge_model: str = flag(
        "hosted_vllm/Qwen/Qwen3-4B",
        "LiteLLM name of the judge. hosted_vllm/ID_OR_PATH is served by the run itself, "
        "unless HOSTED_VLLM_API_BASE names a server",
    )
    llm_judge_num_engines: int = flag(1, "judge replicas that the run starts")
    llm_judge_tensor_parallel_size: int = flag(1, "GPUs a judge replica")
    llm_judge_gpu_memory_utilization: float = flag(0.9, "share of a GPU that a judge replica takes")
    llm_judge_max_tokens: int = flag(2048, "longest reply of the judge in tokens")
    llm_judge_max_context_length: int = flag(8192, "the judge's window in tokens")
    llm_judge_temperature: float = flag(0.0, "the judge's temperature (upstream: 1.0; 0 makes rewards repeatable)")
    llm_judge_timeout: int = flag(60, "seconds for one judgement, retries included")
    llm_judge_structured_output: bool = flag(True, "hold the judge to its JSON schema (off in the paper's runs)")
    llm_judge_thinking: bool = flag(False, "let the judge think first (its template's default in the paper's runs)")
    llm_judge_prompts: str | None = flag(None, "folder of *.prompt files instead of ours, such as the published one")
    flip_similarity: str = flag("f1", "f1, unicode_f1, rouge_l, embedding:MODEL, or an installed package's")
    flip_echo: Literal["report", "strip", "penalise"] = flag(
        "report", "a response that restates its instruction: only measured, cut before the judge reads, or penalised"
    )
    flip_reasoning: bool = flag(True, "the judge gives its reasoning before the instruction; False: the answer alone")
    flip_target: Literal["auto", "user", "system"] = flag(
        "auto", "what is recovered where ground_truth is empty; auto: the system prompt if any, else the last user turn"
    )
    llm_judge_max_concurrency: int = flag(256, "judge calls under way at once")
    llm_judge_startup_timeout: int = flag(900, "seconds until the judge's server must answer")
    llm_judge_max_invalid_frac: float = flag(0.5, "stop the run when more of a step's rewards are missing")


@dataclass
class OptimConfig:
    """Loss and optimiser."""

    total_episodes: int = flag(100_000, "samples in all; steps = total / (prompts x samples)")
    learning_rate: float = flag(1e-6, "peak learning rate (AdamW)")
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = flag("linear", "after the warm-up")
    warmup_ratio: float = flag(0.0, "share of the steps over which the learning rate rises")
    weight_decay: float = flag(0.0, "AdamW weight decay")
    max_grad_norm: float = flag(1.0, "gradients are clipped to this norm")
    per_device_train_batch_size: int = flag(1, "packed rows in a forward pass")
    num_mini_batches: int = flag(1, "optimiser steps a training step")
    num_epochs: int = flag(1, "passes over a step's samples")
    beta: float = flag(0.05, "weight of the KL term against the initial policy; 0 loads no reference")
    kl_estimator: Literal[0, 1, 2, 3] = flag(2, "0: k1, 1: k2, 2: k3, 3: k1 weighted by the ratio")
    clip_lower: float = flag(0.2, "ratios below 1 - this are clipped")
    clip_higher: float = flag(0.272, "ratios above 1 + this are clipped")
    truncated_importance_sampling_ratio_cap: float = flag(
        2.0, "cap of the trainer / sampler probability ratio that weighs each token; 0 switches it off"
    )


@dataclass
class ClusterConfig:
    """What runs where."""

    num_learners_per_node: list[int] = flag([1], "learners on each node")
    deepspeed_stage: Literal[0, 1, 2, 3] = flag(0, "ZeRO stage")
    vllm_num_engines: int = flag(1, "policy engines")
    vllm_tensor_parallel_size: int = flag(1, "GPUs a policy engine")
    vllm_gpu_memory_utilization: float = flag(0.9, "share of a GPU that a policy engine takes")
    vllm_enforce_eager: bool = flag(False, "no CUDA graphs: starts sooner, generates slower")
    vllm_enable_prefix_caching: bool = flag(False, "cache common prefixes of prompts in the policy engines")
    single_gpu_mode: bool = flag(False, "learner, policy engine and judge share one GPU")
    backend_timeout: int = flag(120, "minutes until a collective between learners gives up")
    learner_threads: int = flag(0, "CPU threads of each learner; 0: as many as there are cores")
    engine_threads: int = flag(1, "CPU threads of each engine and judge on a machine without a GPU")


@dataclass
class RunConfig:
    """The run itself."""

    exp_name: str = flag("grpo", "name of the experiment")
    run_name: str | None = flag(None, "name of this run; not given: experiment and seed")
    output_dir: str = flag("output", "everything that the run writes")
    seed: int = flag(42, "of data order, sampling and judge")
    local_eval_every: int = flag(100, "evaluate every so many steps; -1: never")
    eval_on_step_0: bool = flag(False, "evaluate before the first step, too")
    save_freq: int = flag(200, "write a Hugging Face checkpoint every so many steps; -1: at the end only")
    checkpoint_state_freq: int = flag(200, "write a resumable state every so many steps; -1: at the end only")
    keep_last_n_checkpoints: int = flag(3, "how many are kept; -1: all")
    with_tracking: bool = flag(False, "log to Weights & Biases, too")
    wandb_project_name: str = flag("open_instruct", "Weights & Biases project")
    tensorboard: bool = flag(False, "log to TensorBoard, too")
    dry_run: bool = flag(False, "check flags, print the resource plan, load nothing")
    verbose: bool = flag(False, "show what the actors log")


GROUPS = (ModelConfig, DataConfig, RolloutConfig, RewardConfigFlags, OptimConfig, ClusterConfig, RunConfig)


@dataclass
class Args(RunConfig, ClusterConfig, OptimConfig, RewardConfigFlags, RolloutConfig, DataConfig, ModelConfig):
    """All flags in one object."""

    @property
    def samples_per_step(self) -> int:
        return self.num_unique_prompts_rollout * self.num_samples_per_prompt_rollout

    @property
    def num_training_steps(self) -> int:
        return self.total_episodes // self.samples_per_step

    @property
    def world_size(self) -> int:
        """Learners in all."""
        return sum(self.num_learners_per_node)

    @property
    def record_calls_to(self) -> str:
        """Folder of the judge calls; verifiers take it by this name."""
        return f"{self.output_dir}/judge_calls"

    @property
    def judge_model_id(self) -> str | None:
        """What the judge's server loads, where the run itself starts one; else None."""
        prefix = "hosted_vllm/"
        return self.llm_judge_model[len(prefix) :] if self.llm_judge_model.startswith(prefix) else None

    def check(self) -> None:
        """Refuse what cannot work. Raises `FlagError`."""
        problems = [text for bad, text in self._rules() if bad]
        if problems:
            raise FlagError("\n".join(problems))

    def _rules(self) -> list[tuple[bool, str]]:
        longest = self.max_prompt_token_length + self.response_length
        return [
            (not self.model_name_or_path, "--model_name_or_path is missing: which policy is to be trained?"),
            (not self.dataset_mixer_list, "--dataset_mixer_list is missing: which rows are the prompts?"),
            (
                self.pack_length < longest,
                f"--pack_length {self.pack_length} is less than --max_prompt_token_length + --response_length "
                f"= {longest}: raise it to {longest} or more.",
            ),
            (
                self.num_samples_per_prompt_rollout < 2,
                "--num_samples_per_prompt_rollout must be 2 or more: an advantage is a difference within a group.",
            ),
            (
                self.num_training_steps < 1,
                f"--total_episodes {self.total_episodes} is less than one step of {self.samples_per_step} samples.",
            ),
            (
                self.temperature <= 0.0,
                "--temperature must be above 0: at 0 all samples of a group are the same, and teach nothing.",
            ),
            (
                self.attn_implementation == "flash_attention_2" and self.per_device_train_batch_size > 1,
                "--attn_implementation flash_attention_2 takes one packed row at a time: set "
                "--per_device_train_batch_size 1 and a longer --pack_length.",
            ),
            (self.async_steps < 0, "--async_steps must be 0 or more."),
            (
                not self.apply_verifiable_reward,
                "--apply_verifiable_reward False would leave no reward at all.",
            ),
            (
                not 0.0 < self.llm_judge_max_invalid_frac <= 1.0,
                "--llm_judge_max_invalid_frac must lie above 0 and not above 1.",
            ),
            (
                not self.llm_judge_model or "/" not in self.llm_judge_model,
                f"--llm_judge_model {self.llm_judge_model!r} is not a LiteLLM name: write PROVIDER/MODEL, "
                "for instance hosted_vllm/Qwen/Qwen3-4B or hosted_vllm/PATH.",
            ),
            (self.local_eval_every == 0, "--local_eval_every must be 1 or more, or -1 for never."),
        ]


def parse_args(argv: list[str] | None = None) -> Args:
    """Command line -> `Args`; an unknown flag, or a bad value, ends the program with a message."""
    from transformers import HfArgumentParser

    parser = HfArgumentParser(
        GROUPS,  # ty: ignore[invalid-argument-type]
        prog="python -m open_instruct.grpo_fast",
        description="GRPO with a judge's reward: Ray, vLLM, DeepSpeed. Later flags win.",
        allow_abbrev=False,
    )
    *parts, unknown = parser.parse_args_into_dataclasses(argv, return_remaining_strings=True)
    if unknown:
        parser.error(_unknown_flags(list(unknown)))  # ty: ignore[invalid-argument-type]
    values: dict[str, Any] = {}
    for part in parts:
        values |= vars(part)
    args = Args(**values)
    try:
        args.check()
    except FlagError as error:
        parser.error(str(error))
    return args


def _unknown_flags(words: list[str]) -> str:
    known = [f"--{f.name}" for f in fields(Args)]
    told = []
    for word in (w for w in words if w.startswith("--")):
        close = difflib.get_close_matches(word, known, n=1)
        told.append(f"no flag is called {word}" + (f"; did you mean {close[0]}?" if close else ""))
    return "\n".join(told) or f"not understood: {' '.join(words)}"
