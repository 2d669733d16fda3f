"""The flags of a run, a dataclass for each group of `--help`; names and meanings are Open Instruct's.

A field's `help` is what the user reads, and what stands in the table of docs/flags.md (a test compares them).
What cannot work together is refused by `open_instruct.config.rules`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


def flag(default: Any, help: str, *aliases: str) -> Any:
    """A dataclass field with a help text, and the other names that it answers to."""
    metadata: dict[str, Any] = {"help": help}
    if aliases:
        metadata["aliases"] = [f"--{name}" for name in aliases]
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class ModelConfig:
    """The policy."""

    _argument_group_name = "policy"

    model_name_or_path: str = flag("", "policy to train: a Hugging Face id or a local folder")
    model_revision: str | None = flag(None, "branch, tag or commit of the policy on the hub")
    tokenizer_name_or_path: str | None = flag(None, "tokenizer, where it is not the policy's own", "tokenizer_name")
    chat_template_name: str | None = flag(None, "a built-in chat template instead of the tokenizer's own")
    attn_implementation: str | None = flag(None, "transformers attention: sdpa, eager or flash_attention_2")
    gradient_checkpointing: bool = flag(False, "recompute activations in the backward pass: less memory, more time")
    model_dtype: Literal["auto", "float32", "bfloat16"] = flag(
        "auto", "dtype of learner and engines: auto is bfloat16 on GPUs and float32 on CPUs"
    )
    use_peft: bool = flag(False, "train LoRA adapters (peft) instead of all weights")
    lora_r: int = flag(16, "rank of the adapters")
    lora_alpha: int = flag(32, "scale of the adapters, over their rank")
    lora_dropout: float = flag(0.0, "dropout inside the adapters")
    lora_target_modules: list[str] = flag([], "modules with an adapter; not given: every linear layer but the head")


@dataclass
class DataConfig:
    """Which rows, and how they become prompts."""

    _argument_group_name = "data"

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

    _argument_group_name = "rollouts"

    num_unique_prompts_rollout: int = flag(16, "prompts a step")
    num_samples_per_prompt_rollout: int = flag(4, "samples a prompt: the group")
    async_steps: int = flag(1, "how many steps generation may be ahead of learning; 0 waits for each weight sync")
    inflight_updates: bool = flag(True, "swap weights while samples are being generated, instead of waiting for them")
    response_length: int = flag(256, "longest response in tokens")
    pack_length: int = flag(512, "length of a packed row in tokens; at least prompt + response")
    temperature: float = flag(1.0, "sampling temperature")
    vllm_top_p: float = flag(1.0, "nucleus sampling")
    eval_temperature: float | None = flag(None, "temperature in evaluations; not given: that of training")
    eval_top_p: float | None = flag(None, "nucleus sampling in evaluations; not given: that of training")
    eval_response_length: int | None = flag(None, "longest response in evaluations; not given: that of training")
    eval_pass_at_k: int = flag(1, "samples for each evaluation prompt; above 1, eval/pass_at_k is logged, too")
    stop_strings: list[str] = flag([], "strings that end a response (kept in it)")
    advantage_normalization_type: Literal["standard", "centered", "leave_one_out"] = flag(
        "centered",
        "centered: r - mean; standard: divided by the group's deviation, too; "
        "leave_one_out: r - mean of the others (RLOO)",
    )
    filter_zero_std_samples: bool = flag(True, "leave out groups whose rewards are all equal: they teach nothing")
    active_sampling: bool = flag(
        False, "draw further prompts until a step has its full number of groups that teach something"
    )
    active_sampling_max_batches: int = flag(
        10, "with active_sampling: a step draws at most so many times its prompts, then goes on with what it has"
    )
    no_resampling_pass_rate: float | None = flag(
        None, "a prompt whose mean score reaches this is not drawn again in later epochs"
    )
    mask_truncated_completions: bool = flag(
        False, "no loss on responses that hit the length limit; their siblings' advantages do not move"
    )
    save_traces: bool = flag(True, "write every rollout to OUTPUT_DIR/rollouts")
    rollouts_save_path: str | None = flag(None, "another folder for the rollouts")
    save_token_ids: bool = flag(False, "rollouts hold token ids and log-probabilities, too (for --replay_rollouts)")
    replay_rollouts: str | None = flag(
        None, "folder of rollouts (saved with --save_token_ids) whose samples and scores are used instead of new ones"
    )


@dataclass
class RewardConfigFlags:
    """Verifiers and the judge."""

    _argument_group_name = "reward and judge"

    apply_verifiable_reward: bool = flag(True, "the rows' verifiers give rewards")
    verification_reward: float = flag(10.0, "what a score of 1 is worth")
    remap_verifier: str | None = flag(None, "old=new: use another verifier for a tag")
    verifier_weights: list[str] = flag([], "NAME=WEIGHT for verifiers of rows that name several; others weigh 1")
    report_verifiers: list[str] = flag([], "verifiers that are computed and logged, never rewarded")
    apply_r1_style_format_reward: bool = flag(
        False, "reward for the form THOUGHTS </think> <answer> ANSWER </answer>; verifiers count only where it is kept"
    )
    r1_style_format_reward: float = flag(1.0, "what that form is worth")
    additive_format_reward: bool = flag(False, "the form's reward is added, whether or not it is kept")
    non_stop_penalty: bool = flag(False, "a response that did not stop by itself gets non_stop_penalty_value")
    non_stop_penalty_value: float = flag(0.0, "the reward of such a response, in place of all others")
    overlong_buffer_length: int = flag(
        0, "soft overlong punishment (DAPO): the last so many tokens before response_length cost reward; 0: off"
    )
    overlong_penalty: float = flag(1.0, "what a response of full length loses; less in proportion before that")
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

    _argument_group_name = "loss and optimiser"

    total_episodes: int = flag(100_000, "samples in all; steps = total / (prompts x samples)")
    learning_rate: float = flag(1e-6, "peak learning rate (AdamW)")
    lr_scheduler_type: Literal["constant", "constant_with_warmup", "linear", "cosine", "polynomial", "inverse_sqrt"] = (
        flag("linear", "after the warm-up")
    )
    warmup_ratio: float = flag(0.0, "share of the steps over which the learning rate rises")
    warm_up_steps: int = flag(0, "the same as a number of optimiser steps; goes before warmup_ratio")
    weight_decay: float = flag(0.0, "AdamW weight decay")
    set_weight_decay_on_bias_and_norm: bool = flag(True, "decay biases and norms, too")
    fused_optimizer: bool = flag(True, "AdamW in one kernel")
    max_grad_norm: float = flag(1.0, "gradients are clipped to this norm")
    per_device_train_batch_size: int = flag(1, "packed rows in a forward pass")
    num_mini_batches: int = flag(1, "optimiser steps a pass over a training step's samples")
    num_epochs: int = flag(1, "passes over a step's samples")
    loss_fn: Literal["dapo", "cispo", "gspo"] = flag(
        "dapo", "dapo: clipped ratio of tokens; cispo: clipped weight of log-probabilities; gspo: ratio of sequences"
    )
    loss_denominator: str = flag(
        "token",
        "token: mean over the tokens of an optimiser step (DAPO); sequence: mean over responses of their means (GRPO); "
        "a number: mean over responses of their sums over that number (Dr. GRPO)",
    )
    logprob_chunk_size: int = flag(1024, "positions whose logits are held at once in the learner; 0: all of them")
    record_entropy: bool = flag(False, "log the policy's entropy, too")
    beta: float = flag(0.05, "weight of the KL term against the initial policy; 0 loads no reference")
    load_ref_policy: bool = flag(True, "load the reference of the KL term; False needs --beta 0")
    ref_policy_update_freq: int | None = flag(None, "move the reference towards the policy every so many steps")
    alpha: float = flag(0.6, "how far: reference = alpha x policy + (1 - alpha) x reference")
    kl_estimator: Literal[0, 1, 2, 3] = flag(2, "0: k1, 1: k2, 2: k3, 3: k1 weighted by the ratio")
    clip_lower: float = flag(0.2, "ratios below 1 - this are clipped")
    clip_higher: float = flag(0.272, "ratios above 1 + this are clipped")
    use_rho_correction: bool = flag(
        True, "weigh each token by rho, the trainer's probability of it over the sampler's, clamped and masked as below"
    )
    truncated_importance_sampling_ratio_cap: float = flag(
        2.0, "rho is clamped to this from above; 0: not clamped", "rho_clamp_upper_bound"
    )
    rho_clamp_lower_bound: float = flag(0.0, "rho is clamped to this from below; 0: not clamped")
    rho_mask_lower_bound: float = flag(0.0, "tokens with rho below this have no loss (IcePop); 0: all have")
    rho_mask_upper_bound: float = flag(0.0, "tokens with rho above this have no loss (IcePop); 0: all have")
    rho_mask_sequence_level: bool = flag(
        False, "rho is that of the whole response (the geometric mean over its tokens), for clamp and mask"
    )
    rho_mask_tv_divergence: bool = flag(
        False, "mask by the response's mean |rho - 1|, and only tokens whose update would raise it (VACO)"
    )
    use_vllm_logprobs: bool = flag(
        False, "the sampler's log-probabilities are the old policy's in the clipped ratio; excludes use_rho_correction"
    )


@dataclass
class ClusterConfig:
    """What runs where."""

    _argument_group_name = "cluster"

    num_learners_per_node: list[int] = flag([1], "learners on each node")
    deepspeed_stage: Literal[0, 1, 2, 3] = flag(0, "ZeRO stage")
    deepspeed_offload_optimizer: bool = flag(False, "optimiser states in main memory (ZeRO 1 to 3)")
    deepspeed_offload_param: bool = flag(False, "parameters in main memory, too (ZeRO 3)")
    deepspeed_zpg: int = flag(1, "ranks that keep a second shard of the weights, to gather within a node (ZeRO 3)")
    vllm_num_engines: int = flag(1, "policy engines")
    vllm_tensor_parallel_size: int = flag(1, "GPUs a policy engine")
    vllm_gpu_memory_utilization: float = flag(0.9, "share of a GPU that a policy engine takes")
    vllm_enforce_eager: bool = flag(False, "no CUDA graphs: starts sooner, generates slower")
    vllm_enable_prefix_caching: bool = flag(False, "cache common prefixes of prompts in the policy engines")
    vllm_attention_backend: str | None = flag(None, "vLLM's attention backend for the policy engines")
    weight_sync: Literal["auto", "object_store"] = flag(
        "auto",
        "how weights reach the engines: auto is NCCL between GPUs; object_store (Ray's, slower, and the only way on "
        "CPUs) lets an engine that died be started again",
    )
    max_actor_restarts: int = flag(
        3, "how often a policy engine that died is started again before the run gives up; 0: never"
    )
    single_gpu_mode: bool = flag(False, "learner, policy engine and judge share one GPU")
    backend_timeout: int = flag(120, "minutes until a collective between learners gives up")
    learner_threads: int = flag(0, "CPU threads of each learner; 0: as many as there are cores")
    engine_threads: int = flag(1, "CPU threads of each engine and judge on a machine without a GPU")


@dataclass
class RunConfig:
    """The run itself."""

    _argument_group_name = "run"

    exp_name: str = flag("grpo", "name of the experiment")
    run_name: str | None = flag(None, "name of this run; not given: experiment and seed")
    output_dir: str = flag("output", "everything that the run writes")
    seed: int = flag(42, "of data order, sampling and judge")
    local_eval_every: int = flag(100, "evaluate every so many steps; -1: never")
    eval_on_step_0: bool = flag(False, "evaluate before the first step, too")
    save_freq: int = flag(200, "write a Hugging Face checkpoint every so many steps; -1: at the end only")
    checkpoint_state_freq: int = flag(200, "write a resumable state every so many steps; -1: at the end only")
    checkpoint_state_dir: str | None = flag(None, "where states go; not given: OUTPUT_DIR/state")
    keep_last_n_checkpoints: int = flag(3, "how many Hugging Face checkpoints and states are kept; -1: all")
    stop_patience: int = flag(
        30, "seconds that SIGTERM or Ctrl-C leave for ending the step and writing a state; 0: stop at once"
    )
    with_tracking: bool = flag(False, "log to Weights & Biases, too (WANDB_MODE=offline needs no account)")
    wandb_project_name: str = flag("open_instruct", "Weights & Biases and trackio project", "wandb_project")
    wandb_entity: str | None = flag(None, "Weights & Biases user or team")
    wandb_group_name: str | None = flag(None, "Weights & Biases group")
    tensorboard: bool = flag(False, "log to TensorBoard, too")
    trackio: bool = flag(False, "log to trackio, a local dashboard, too")
    dry_run: bool = flag(False, "check flags, print the recipe and the resource plan, load nothing")
    compare_with_published: bool = flag(False, "with dry_run: what differs from the published script, and why")
    dry_run_nodes: list[int] = flag([], "with dry_run: GPUs of each node that the plan is laid out for, as in 8 8 8")
    verbose: bool = flag(False, "show what the actors log")


GROUPS = (ModelConfig, DataConfig, RolloutConfig, RewardConfigFlags, OptimConfig, ClusterConfig, RunConfig)


def parse_denominator(denominator: str) -> float | None:
    """The constant of ``--loss_denominator``, None for "token" and "sequence". Raises ValueError for other text."""
    if denominator in ("token", "sequence"):
        return None
    try:
        constant = float(denominator)
    except ValueError:
        constant = -1.0
    if not 0.0 < constant < float("inf"):
        raise ValueError(f"loss_denominator must be token, sequence or a number above 0, not {denominator!r}")
    return constant
