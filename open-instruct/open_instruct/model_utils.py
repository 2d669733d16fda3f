"""Loading and saving models, under upstream's module name: see `open_instruct.learner.hf_io`."""

from open_instruct.learner.hf_io import disable_dropout, load_policy, resolve_dtype, save_checkpoint

__all__ = ["disable_dropout", "load_policy", "resolve_dtype", "save_checkpoint"]
