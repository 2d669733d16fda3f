"""Packing samples into batches, under upstream's module name: see `open_instruct.learner.packing`."""

from open_instruct.learner.packing import TrainingSample, first_fit_decreasing, pack_mini_batches, pack_samples

__all__ = ["TrainingSample", "first_fit_decreasing", "pack_mini_batches", "pack_samples"]
