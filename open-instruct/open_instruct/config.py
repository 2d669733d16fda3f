"""All flags of a run in one object: what is derived from them, what is refused, and the command line.

The flags themselves are in `open_instruct.flags`. What cannot work is refused in `check`, before anything
is loaded, in terms of the flags that were typed.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from open_instruct.flags import (
    GROUPS,
    ClusterConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    RewardConfigFlags,
    RolloutConfig,
    RunConfig,
)


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
            (
                self.keep_last_n_checkpoints < 1 and self.keep_last_n_checkpoints != -1,
                "--keep_last_n_checkpoints must be 1 or more, or -1 for all.",
            ),
            (
                self.save_token_ids and not self.save_traces,
                "--save_token_ids adds to the rollouts that --save_traces writes: do not switch those off.",
            ),
            (
                self.replay_rollouts is not None and _same_place(self.replay_rollouts, self._rollouts_folder()),
                f"--replay_rollouts {self.replay_rollouts} is where this run writes its own rollouts: "
                "give another --output_dir or --rollouts_save_path.",
            ),
        ]


def _same_place(one: str, other: str) -> bool:
    return Path(one).absolute().resolve() == Path(other).absolute().resolve()


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
