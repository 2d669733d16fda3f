"""All flags of a run in one object: what is derived from them, what is refused, and the command line.

The flags themselves are in `open_instruct.config.flags`. What cannot work is refused in `check`, before anything
is loaded, in terms of the flags that were typed.
"""

from __future__ import annotations

import difflib
import math
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from open_instruct.config.flags import (
    GROUPS,
    ClusterConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    RewardConfigFlags,
    RolloutConfig,
    RunConfig,
    parse_denominator,
)
from open_instruct.config.help import FlagHelp
from open_instruct.config.refused import split_refused


class FlagError(ValueError):
    """A flag, or a pair of flags, that the run cannot honour; the message says what to do."""


@dataclass
class Args(RunConfig, ClusterConfig, OptimConfig, RewardConfigFlags, RolloutConfig, DataConfig, ModelConfig):
    """All flags in one object."""

    @property
    def samples_per_step(self) -> int:
        return self.num_unique_prompts_rollout * self.num_samples_per_prompt_rollout

    @property
    def num_training_steps(self) -> int:
        return self.total_episodes // max(self.samples_per_step, 1)  # `check` refuses 0

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

    @property
    def tokenizer_revision(self) -> str | None:
        """The policy's, where the tokenizer is the policy's own."""
        return None if self.tokenizer_name_or_path else self.model_revision

    def _rollouts_folder(self) -> str:
        return self.rollouts_save_path or f"{self.output_dir}/rollouts"

    @property
    def evaluates(self) -> bool:
        """Whether the run has evaluations."""
        return bool(self.dataset_mixer_eval_list) and self.local_eval_every > 0

    @property
    def generates(self) -> bool:
        """Whether engines and verifiers are needed: recorded rollouts need neither, their evaluation does."""
        return self.evaluates or self.replay_rollouts is None

    def check(self) -> None:
        """Refuse what cannot work. Raises `FlagError`."""
        problems = [text for bad, text in self._rules() if bad]
        if problems:
            raise FlagError("\n".join(problems))

    def _rules(self) -> list[tuple[bool, str]]:
        longest = self.max_prompt_token_length + self.response_length
        counts = (
            "num_unique_prompts_rollout",
            "max_prompt_token_length",
            "response_length",
            "per_device_train_batch_size",
            "vllm_tensor_parallel_size",
            "llm_judge_num_engines",
            "llm_judge_tensor_parallel_size",
        )
        return [
            *((getattr(self, name) < 1, f"--{name} must be 1 or more.") for name in counts),
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
                not (self.apply_verifiable_reward or self.apply_r1_style_format_reward or self.non_stop_penalty),
                "--apply_verifiable_reward False leaves no reward at all: give --apply_r1_style_format_reward True "
                "or --non_stop_penalty True.",
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
            (
                self.keep_last_n_checkpoints < 1 and self.keep_last_n_checkpoints != -1,
                "--keep_last_n_checkpoints must be 1 or more, or -1 for all.",
            ),
            (
                self.replay_rollouts is not None and _same_place(self.replay_rollouts, self._rollouts_folder()),
                f"--replay_rollouts {self.replay_rollouts} is where this run writes its own rollouts: "
                "give another --output_dir or --rollouts_save_path.",
            ),
            (
                self.eval_on_step_0 and self.local_eval_every < 0,
                "--eval_on_step_0 True and --local_eval_every -1 contradict each other: raise the second.",
            ),
            *self._reward_rules(),
            *self._loss_rules(),
            *self._learner_rules(),
        ]

    def _reward_rules(self) -> list[tuple[bool, str]]:
        return [
            (
                self.additive_format_reward and not self.apply_r1_style_format_reward,
                "--additive_format_reward True adds a reward that is off: set --apply_r1_style_format_reward True.",
            ),
            (
                not 0 <= self.overlong_buffer_length <= self.response_length,
                f"--overlong_buffer_length must lie between 0 and --response_length {self.response_length}.",
            ),
            (
                self.active_sampling and not self.filter_zero_std_samples,
                "--active_sampling True replaces the groups that --filter_zero_std_samples leaves out: switch it on.",
            ),
            (self.active_sampling_max_batches < 1, "--active_sampling_max_batches must be 1 or more."),
            (
                self.no_resampling_pass_rate is not None and not 0.0 < self.no_resampling_pass_rate <= 1.0,
                "--no_resampling_pass_rate must lie above 0 and not above 1.",
            ),
            (not 0.0 < self.vllm_top_p <= 1.0, "--vllm_top_p must lie in (0, 1]."),
            (self.eval_top_p is not None and not 0.0 < self.eval_top_p <= 1.0, "--eval_top_p must lie in (0, 1]."),
            (
                self.eval_temperature is not None and self.eval_temperature < 0.0,
                "--eval_temperature must be 0 (greedy) or more.",
            ),
            (self.eval_pass_at_k < 1, "--eval_pass_at_k must be 1 or more."),
            (
                self.eval_pass_at_k > 1 and self.eval_temperature == 0.0,
                f"--eval_pass_at_k {self.eval_pass_at_k} needs samples that differ: raise --eval_temperature above 0.",
            ),
            (
                self.eval_response_length is not None and not 0 < self.eval_response_length <= self.response_length,
                f"--eval_response_length must lie between 1 and --response_length {self.response_length}: "
                "the engines have room for no more.",
            ),
            (
                self.save_token_ids and not self.save_traces,
                "--save_token_ids True adds to the rollouts on disk, which --save_traces False switches off.",
            ),
        ]

    def _loss_rules(self) -> list[tuple[bool, str]]:
        bounds = [
            ("rho_clamp_lower_bound", self.rho_clamp_lower_bound, 0.0, 1.0),
            ("rho_mask_lower_bound", self.rho_mask_lower_bound, 0.0, 1.0),
            ("truncated_importance_sampling_ratio_cap", self.truncated_importance_sampling_ratio_cap, 1.0, math.inf),
            ("rho_mask_upper_bound", self.rho_mask_upper_bound, 1.0, math.inf),
        ]
        side = {0.0: "between 0 and 1", 1.0: "1 or more"}
        return [
            (
                not _is_denominator(self.loss_denominator),
                f"--loss_denominator {self.loss_denominator} must be token, sequence, or a number above 0.",
            ),
            (
                not self.load_ref_policy and self.beta != 0.0,
                f"--load_ref_policy False leaves nothing for the KL term of --beta {self.beta}: set --beta 0.",
            ),
            (
                self.ref_policy_update_freq is not None and self.ref_policy_update_freq < 1,
                "--ref_policy_update_freq must be 1 or more steps.",
            ),
            (
                self.use_vllm_logprobs and self.use_rho_correction,
                "--use_vllm_logprobs True makes rho 1: set --use_rho_correction False with it.",
            ),
            *(
                (value != 0.0 and not least <= value <= most, f"--{name} {value} must be {side[least]} (0: off).")
                for name, value, least, most in bounds
            ),
            (
                self.rho_mask_tv_divergence and not (self.rho_mask_lower_bound or self.rho_mask_upper_bound),
                "--rho_mask_tv_divergence True has no bound to compare with: give --rho_mask_upper_bound.",
            ),
            (
                self.num_mini_batches < 1 or self.num_epochs < 1,
                "--num_mini_batches and --num_epochs must be 1 or more.",
            ),
            (self.logprob_chunk_size < 0, "--logprob_chunk_size must be 0 or more."),
        ]

    def _learner_rules(self) -> list[tuple[bool, str]]:
        return [
            (
                self.deepspeed_offload_optimizer and not self.deepspeed_stage,
                "--deepspeed_offload_optimizer True needs --deepspeed_stage 1, 2 or 3.",
            ),
            (
                self.deepspeed_offload_param and self.deepspeed_stage != 3,
                "--deepspeed_offload_param True needs --deepspeed_stage 3.",
            ),
            (
                self.deepspeed_zpg < 1 or (self.deepspeed_zpg > 1 and self.world_size % self.deepspeed_zpg != 0),
                f"--deepspeed_zpg {self.deepspeed_zpg} must divide the number of learners, {self.world_size}.",
            ),
            (
                self.deepspeed_zpg > 1 and self.deepspeed_stage != 3,
                f"--deepspeed_zpg {self.deepspeed_zpg} needs --deepspeed_stage 3.",
            ),
            (self.use_peft and self.lora_r < 1, "--lora_r must be 1 or more."),
            (not 0.0 <= self.lora_dropout < 1.0, "--lora_dropout must lie between 0 and 1."),
            (
                self.use_peft and self.ref_policy_update_freq is not None,
                "--ref_policy_update_freq cannot move the reference of --use_peft True, which is the base model: "
                "leave one of them out.",
            ),
            (
                self.lr_scheduler_type == "constant" and (self.warmup_ratio > 0 or self.warm_up_steps > 0),
                "--lr_scheduler_type constant has no warm-up: set constant_with_warmup.",
            ),
            (self.max_actor_restarts < 0, "--max_actor_restarts must be 0 or more."),
        ]


def _is_denominator(text: str) -> bool:
    try:
        parse_denominator(text)
    except ValueError:
        return False
    return True


def _same_place(one: str, other: str) -> bool:
    return Path(one).absolute().resolve() == Path(other).absolute().resolve()


def parse_args(argv: list[str] | None = None) -> Args:
    """Command line -> `Args`; an unknown flag, or a bad value, ends the program with a message."""
    from transformers import HfArgumentParser

    parser = HfArgumentParser(
        GROUPS,  # ty: ignore[invalid-argument-type]
        prog="python -m open_instruct.grpo_fast",
        usage="%(prog)s --model_name_or_path MODEL --dataset_mixer_list ROWS 1.0 [flags]",
        description="GRPO with a judge's reward: Ray, vLLM, DeepSpeed. Later flags win; a switch alone is True.",
        epilog="The recipes in scripts/train set most of these; docs/flags.md has them as a table.",
        formatter_class=FlagHelp,
        allow_abbrev=False,
    )
    FlagHelp.hide_negations(parser)
    words, refused = split_refused(list(sys.argv[1:] if argv is None else argv))
    if refused:
        parser.error("\n".join(refused))
    *parts, unknown = parser.parse_args_into_dataclasses(words, return_remaining_strings=True)
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
