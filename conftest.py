"""What pytest collects besides the files of tests: modules whose docstrings have examples, and no others.

``--doctest-modules`` would import every module of the packages, those that load vLLM and torch too.
"""

from __future__ import annotations

from pathlib import Path


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """True for a module without an example, so that it is not imported."""
    if collection_path.suffix != ".py" or collection_path.name.startswith("test_"):
        return None
    return True if ">>> " not in collection_path.read_text(encoding="utf-8") else None
