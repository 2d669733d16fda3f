"""All flags of a run in one object, and what is derived from them.

The flags themselves are in `open_instruct.config.flags`, what cannot work in `open_instruct.config.rules`.
"""

from __future__ import annotations

from dataclasses import dataclass

from open_instruct.config.flags import (
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
        """Responses that a step samples: prompts times the group's size."""
        return self.num_unique_prompts_rollout * self.num_samples_per_prompt_rollout

    @property
    def num_training_steps(self) -> int:
        """Steps of the whole run, those of an earlier part included."""
        return self.total_episodes // max(self.samples_per_step, 1)  # 0 samples are refused in `rules`

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

    @property
    def evaluates(self) -> bool:
        """Whether the run has evaluations."""
        return bool(self.dataset_mixer_eval_list) and self.local_eval_every > 0

    @property
    def generates(self) -> bool:
        """Whether engines and verifiers are needed: recorded rollouts need neither, their evaluation does."""
        return self.evaluates or self.replay_rollouts is None
