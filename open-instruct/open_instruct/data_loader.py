"""The data side of a run, under upstream's module name: see `open_instruct.rollout.prep_actor`."""

from open_instruct.rollout.prep_actor import (
    DataPreparationActor,
    initial_state,
    pass_rate,
    samples_of_group,
    training_samples,
)

__all__ = ["DataPreparationActor", "initial_state", "pass_rate", "samples_of_group", "training_samples"]
