"""Which flags, and which pairs of flags, a run cannot honour: `check` refuses them before anything is loaded.

Each rule is an `if`, and the sentence that the user reads when it holds: in terms of the flags that were typed,
with what to do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from open_instruct.config.args import Args, FlagError
from open_instruct.config.flags import parse_denominator

AT_LEAST_ONE = (
    "num_unique_prompts_rollout",
    "max_prompt_token_length",
    "response_length",
    "per_device_train_batch_size",
    "num_mini_batches",
    "num_epochs",
    "active_sampling_max_batches",
    "eval_pass_at_k",
    "vllm_tensor_parallel_size",
    "llm_judge_num_engines",
    "llm_judge_tensor_parallel_size",
)
AT_LEAST_ZERO = ("async_steps", "logprob_chunk_size", "max_actor_restarts", "eval_temperature")
#: More than 0 and at most 1.
SHARES = ("llm_judge_max_invalid_frac", "no_resampling_pass_rate", "vllm_top_p", "eval_top_p")
#: Bounds of rho: 0 switches one off, else it lies between these two.
RHO_BOUNDS = {
    "rho_clamp_lower_bound": (0.0, 1.0),
    "rho_mask_lower_bound": (0.0, 1.0),
    "truncated_importance_sampling_ratio_cap": (1.0, math.inf),
    "rho_mask_upper_bound": (1.0, math.inf),
}


def check(args: Args) -> None:
    """Raise `FlagError` with a line for everything that cannot work."""
    rules = (_ranges, _rows, _steps, _groups, _rewards, _evaluation, _rollouts_on_disk, _loss, _learner)
    problems = [sentence for rule in rules for sentence in rule(args)]
    if problems:
        raise FlagError("\n".join(problems))


def _ranges(args: Args) -> Iterator[str]:
    """Flags that have a range of their own; one that is None was not given."""
    for names, least in ((AT_LEAST_ONE, 1), (AT_LEAST_ZERO, 0)):
        for name in names:
            value = getattr(args, name)
            if value is not None and value < least:
                number = "0 (greedy)" if name == "eval_temperature" else least
                yield f"--{name} must be {number} or more."
    for name in SHARES:
        value = getattr(args, name)
        if value is not None and not 0.0 < value <= 1.0:
            yield f"--{name} must lie above 0 and not above 1."
    for name, (least, most) in RHO_BOUNDS.items():
        value = getattr(args, name)
        if value != 0.0 and not least <= value <= most:
            yield f"--{name} {value} must be {'1 or more' if most == math.inf else 'between 0 and 1'} (0: off)."


def _rows(args: Args) -> Iterator[str]:
    if not args.model_name_or_path:
        yield "--model_name_or_path is missing: which policy is to be trained?"
    if not args.dataset_mixer_list:
        yield "--dataset_mixer_list is missing: which rows are the prompts?"


def _steps(args: Args) -> Iterator[str]:
    longest = args.max_prompt_token_length + args.response_length
    if args.pack_length < longest:
        yield (
            f"--pack_length {args.pack_length} is less than --max_prompt_token_length + --response_length "
            f"= {longest}: raise it to {longest} or more."
        )
    if args.num_training_steps < 1:
        yield f"--total_episodes {args.total_episodes} is less than one step of {args.samples_per_step} samples."
    if args.keep_last_n_checkpoints < 1 and args.keep_last_n_checkpoints != -1:
        yield "--keep_last_n_checkpoints must be 1 or more, or -1 for all."


def _groups(args: Args) -> Iterator[str]:
    if args.num_samples_per_prompt_rollout < 2:
        yield "--num_samples_per_prompt_rollout must be 2 or more: an advantage is a difference within a group."
    if args.temperature <= 0.0:
        yield "--temperature must be above 0: at 0 all samples of a group are the same, and teach nothing."
    if args.active_sampling and not args.filter_zero_std_samples:
        yield "--active_sampling True replaces the groups that --filter_zero_std_samples leaves out: switch it on."


def _rewards(args: Args) -> Iterator[str]:
    if not (args.apply_verifiable_reward or args.apply_r1_style_format_reward or args.non_stop_penalty):
        yield (
            "--apply_verifiable_reward False leaves no reward at all: give --apply_r1_style_format_reward True "
            "or --non_stop_penalty True."
        )
    if args.additive_format_reward and not args.apply_r1_style_format_reward:
        yield "--additive_format_reward True adds a reward that is off: set --apply_r1_style_format_reward True."
    if not 0 <= args.overlong_buffer_length <= args.response_length:
        yield f"--overlong_buffer_length must lie between 0 and --response_length {args.response_length}."
    if not args.llm_judge_model or "/" not in args.llm_judge_model:
        yield (
            f"--llm_judge_model {args.llm_judge_model!r} is not a LiteLLM name: write PROVIDER/MODEL, "
            "for instance hosted_vllm/Qwen/Qwen3-4B or hosted_vllm/PATH."
        )


def _evaluation(args: Args) -> Iterator[str]:
    if args.local_eval_every == 0:
        yield "--local_eval_every must be 1 or more, or -1 for never."
    if args.eval_on_step_0 and args.local_eval_every < 0:
        yield "--eval_on_step_0 True and --local_eval_every -1 contradict each other: raise the second."
    if args.eval_pass_at_k > 1 and args.eval_temperature == 0.0:
        yield f"--eval_pass_at_k {args.eval_pass_at_k} needs samples that differ: raise --eval_temperature above 0."
    if args.eval_response_length is not None and not 0 < args.eval_response_length <= args.response_length:
        yield (
            f"--eval_response_length must lie between 1 and --response_length {args.response_length}: "
            "the engines have room for no more."
        )


def _rollouts_on_disk(args: Args) -> Iterator[str]:
    if args.save_token_ids and not args.save_traces:
        yield "--save_token_ids True adds to the rollouts on disk, which --save_traces False switches off."
    own = args.rollouts_save_path or f"{args.output_dir}/rollouts"
    if args.replay_rollouts is not None and Path(args.replay_rollouts).resolve() == Path(own).resolve():
        yield (
            f"--replay_rollouts {args.replay_rollouts} is where this run writes its own rollouts: "
            "give another --output_dir or --rollouts_save_path."
        )


def _loss(args: Args) -> Iterator[str]:
    try:
        parse_denominator(args.loss_denominator)
    except ValueError:
        yield f"--loss_denominator {args.loss_denominator} must be token, sequence, or a number above 0."
    if not args.load_ref_policy and args.beta != 0.0:
        yield f"--load_ref_policy False leaves nothing for the KL term of --beta {args.beta}: set --beta 0."
    if args.ref_policy_update_freq is not None and args.ref_policy_update_freq < 1:
        yield "--ref_policy_update_freq must be 1 or more steps."
    if args.use_vllm_logprobs and args.use_rho_correction:
        yield "--use_vllm_logprobs True makes rho 1: set --use_rho_correction False with it."
    if args.rho_mask_tv_divergence and not (args.rho_mask_lower_bound or args.rho_mask_upper_bound):
        yield "--rho_mask_tv_divergence True has no bound to compare with: give --rho_mask_upper_bound."


def _learner(args: Args) -> Iterator[str]:
    if args.attn_implementation == "flash_attention_2" and args.per_device_train_batch_size > 1:
        yield (
            "--attn_implementation flash_attention_2 takes one packed row at a time: set "
            "--per_device_train_batch_size 1 and a longer --pack_length."
        )
    if args.deepspeed_offload_optimizer and not args.deepspeed_stage:
        yield "--deepspeed_offload_optimizer True needs --deepspeed_stage 1, 2 or 3."
    if args.deepspeed_offload_param and args.deepspeed_stage != 3:
        yield "--deepspeed_offload_param True needs --deepspeed_stage 3."
    if args.deepspeed_zpg < 1 or args.world_size % args.deepspeed_zpg != 0:
        yield f"--deepspeed_zpg {args.deepspeed_zpg} must divide the number of learners, {args.world_size}."
    if args.deepspeed_zpg > 1 and args.deepspeed_stage != 3:
        yield f"--deepspeed_zpg {args.deepspeed_zpg} needs --deepspeed_stage 3."
    if args.lr_scheduler_type == "constant" and (args.warmup_ratio > 0 or args.warm_up_steps > 0):
        yield "--lr_scheduler_type constant has no warm-up: set constant_with_warmup."
    if not 0.0 <= args.lora_dropout < 1.0:
        yield "--lora_dropout must lie between 0 and 1."
    if args.use_peft and args.lora_r < 1:
        yield "--lora_r must be 1 or more."
    if args.use_peft and args.ref_policy_update_freq is not None:
        yield (
            "--ref_policy_update_freq cannot move the reference of --use_peft True, which is the base model: "
            "leave one of them out."
        )
