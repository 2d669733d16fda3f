"""What a finished run says, for tests."""

import json
from pathlib import Path

from flip_plugin.evals.records.items import Cell


def load_results(folder):
    """results.json of a run folder, its cells as `Cell`s."""
    results = json.loads((Path(folder) / "results.json").read_text(encoding="utf-8"))
    return {**results, "cells": [Cell(**cell) for cell in results["cells"]]}
