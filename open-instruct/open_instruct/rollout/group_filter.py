"""Which groups and samples of a step have a loss: groups of equal rewards are dropped here.

The advantages themselves are `open_instruct.learner.grpo.group_advantages`.
"""

from __future__ import annotations

import numpy as np

from open_instruct.config.args import Args
from open_instruct.data.types import Group
from open_instruct.learner.grpo import group_advantages
from open_instruct.learner.packing import TrainingSample


def training_samples(groups: list[Group], args: Args) -> tuple[list[TrainingSample], dict[str, float | None]]:
    """The samples of all groups that have a loss, and how many groups have none and why."""
    training: list[TrainingSample] = []
    reasons = []
    for group in groups:
        samples, reason = samples_of_group(group, args)
        training += samples
        reasons.append(reason)
    counts: dict[str, float | None] = {
        "objective/groups_dropped": float(reasons.count("missing")),
        "objective/groups_zero_std": float(reasons.count("zero_std")),
        "objective/samples_trained_on": float(len(training)),
    }
    return training, counts


def samples_of_group(group: Group, args: Args) -> tuple[list[TrainingSample], str]:
    """The samples of a group that have a loss, with their advantages; and "missing" or "zero_std" if that is why
    there are none, else "".

    A missing reward leaves its group's mean and deviation and has no loss. A group with fewer than two
    rewards has none ("missing"), nor has one whose rewards are all equal (`filter_zero_std_samples`). A
    truncated response (`mask_truncated_completions`) has no loss, but stays in its group's statistics, so its
    siblings' advantages do not move.
    """
    rewards = np.array([np.nan if s.reward is None else s.reward for s in group.samples], dtype=float)
    advantages = group_advantages(rewards, args.advantage_normalization_type)
    if np.isnan(advantages).all():
        return [], "missing"
    if args.filter_zero_std_samples and np.ptp(rewards[~np.isnan(rewards)]) == 0:
        return [], "zero_std"
    training = []
    for scored, advantage in zip(group.samples, advantages, strict=True):
        sample = scored.sample
        truncated = args.mask_truncated_completions and sample.finish_reason != "stop"
        if np.isnan(advantage) or truncated or not sample.token_ids:
            continue
        scored.advantage = float(advantage)
        prompt = group.row["input_ids_prompt"]
        training.append(TrainingSample(prompt, sample.token_ids, sample.logprobs, scored.advantage))
    return training, ""


def has_loss(group: Group, args: Args) -> bool:
    """Whether any sample of the group has a loss: whether the group teaches something."""
    return bool(samples_of_group(group, args)[0])


def pass_rate(group: Group) -> float:
    """Mean score of a group, 0 to 1; NaN where a sample has none, since an unknown one may have failed."""
    scores = [np.nan if s.score is None else s.score for s in group.samples]
    return float(np.mean(scores))
