"""The data side of a run, under upstream's module name: see `open_instruct.rollout`."""

from open_instruct.data.prompt_stream import PromptOrder
from open_instruct.rewards.missing import JudgeFailure
from open_instruct.rollout.group_filter import pass_rate, samples_of_group, training_samples
from open_instruct.rollout.prep_actor import DataPreparationActor, initial_state

__all__ = [
    "DataPreparationActor",
    "JudgeFailure",
    "PromptOrder",
    "initial_state",
    "pass_rate",
    "samples_of_group",
    "training_samples",
]
