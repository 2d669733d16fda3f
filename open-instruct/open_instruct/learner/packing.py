"""Packing: several samples behind each other in rows of one length, shared out over mini-batches and learners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from open_instruct.data.types import PackedBatch


@dataclass(frozen=True)
class TrainingSample:
    """What the loss needs of one sample: P prompt tokens, T response tokens with T log-probabilities."""

    prompt_ids: Sequence[int]
    response_ids: Sequence[int]
    sampler_logprobs: Sequence[float]
    advantage: float

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


def first_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put items into as few bins as the heuristic finds: lists of item numbers, longest item first.

    Raises ValueError when an item is longer than `capacity`.

    >>> first_fit_decreasing([3, 5, 2], capacity=5)
    [[1], [0, 2]]
    """
    if lengths and max(lengths) > capacity:
        raise ValueError(f"a sample of {max(lengths)} tokens does not fit a pack of {capacity}: raise pack_length")
    bins: list[list[int]] = []
    room: list[int] = []
    for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        for b, free in enumerate(room):
            if lengths[item] <= free:
                bins[b].append(item)
                room[b] -= lengths[item]
                break
        else:
            bins.append([item])
            room.append(capacity - lengths[item])
    return bins


def pack_mini_batches(
    samples: Sequence[TrainingSample],
    *,
    num_mini_batches: int,
    seed: int,
    step: int,
    pack_length: int,
    num_learners: int,
    pad_token_id: int,
) -> list[list[PackedBatch]]:
    """A step's samples as a list for each learner of a `PackedBatch` for each mini-batch (optimiser step).

    Samples are shuffled by (`seed`, `step`), so a mini-batch mixes groups, and dealt out as evenly as they
    divide; where there are fewer samples than mini-batches, the last of these hold padding alone. Within a
    mini-batch all learners have the same number of packs (see `pack_samples`).
    """
    order = np.random.default_rng([seed, step]).permutation(len(samples))
    mini_batches = [
        pack_samples(
            [samples[i] for i in chosen], pack_length=pack_length, num_learners=num_learners, pad_token_id=pad_token_id
        )
        for chosen in np.array_split(order, num_mini_batches)
    ]
    return [list(of_rank) for of_rank in zip(*mini_batches, strict=True)]


def pack_samples(
    samples: Sequence[TrainingSample], *, pack_length: int, num_learners: int, pad_token_id: int
) -> list[PackedBatch]:
    """Pack the samples of an optimiser step and share the packs out: one `PackedBatch` for each learner.

    Every learner gets the same number of packs, padded with empty ones where they do not divide, since
    learners step together. Rows are cut to the longest pack: arrays are (P, L) with L <= pack_length.
    """
    bins = first_fit_decreasing([len(s) for s in samples], pack_length)
    while len(bins) % num_learners or not bins:
        bins.append([])
    width = max(max((sum(len(samples[i]) for i in b) for b in bins), default=1), 1)
    return [
        _pack([[samples[i] for i in b] for b in bins[rank::num_learners]], width, pad_token_id)
        for rank in range(num_learners)
    ]


def _pack(packs: list[list[TrainingSample]], width: int, pad_token_id: int) -> PackedBatch:
    shape = (len(packs), width)
    batch = PackedBatch(
        input_ids=np.full(shape, pad_token_id, dtype=np.int64),
        position_ids=np.zeros(shape, dtype=np.int64),
        segment_ids=np.zeros(shape, dtype=np.int64),
        response_mask=np.zeros(shape, dtype=np.float32),
        advantages=np.zeros(shape, dtype=np.float32),
        sampler_logprobs=np.zeros(shape, dtype=np.float32),
    )
    for row, pack in enumerate(packs):
        start = end = 0
        for segment, sample in enumerate(pack, start=1):
            end, response = start + len(sample), start + len(sample.prompt_ids)
            batch.input_ids[row, start:response] = sample.prompt_ids
            batch.input_ids[row, response:end] = sample.response_ids
            batch.position_ids[row, start:end] = np.arange(len(sample))
            batch.segment_ids[row, start:end] = segment
            batch.response_mask[row, response:end] = 1.0
            batch.advantages[row, response:end] = sample.advantage
            batch.sampler_logprobs[row, response:end] = sample.sampler_logprobs
            start = end
        # Padding goes on counting: a row with a single sample needs no mask then, and runs faster.
        batch.position_ids[row, end:] = np.arange(width - end) + (len(pack[-1]) if pack else 0)
    return batch
