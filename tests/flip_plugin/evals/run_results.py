"""What a finished run says, for tests."""

import json
from pathlib import Path

from flip_plugin.evals.records.items import Result


def load_results(folder):
    """results.json of a run folder, its results as `Result`s."""
    content = json.loads((Path(folder) / "results.json").read_text(encoding="utf-8"))
    return {**content, "cells": [Result(**result) for result in content["cells"]]}
