"""Packed batches -> a step: loss, optimiser, reference policy, checkpoints."""
