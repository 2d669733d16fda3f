"""`report.html`: one page, in one file, to look at a run: curves, configuration, every kind of rollout.

    python -m open_instruct.report OUTPUT_DIR

Made from what a run leaves on disk (`config.json`, `metrics.jsonl`, `rollouts/*.jsonl`),
so it can be made while the run goes on and after it has been killed; what is missing is
left out, what is unreadable is counted and said. The page needs no network, and may not
use one: its content security policy names its own script and style by their hash, so
nothing that a model wrote can run in it, either.

Here the data is chosen, shortened and cleaned; `report_template.html` draws it.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import json
import re
import string
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any

from open_instruct.records_io import read_jsonl, to_jsonable, write_text_atomic
from open_instruct.report_charts import build_charts, number, thin

MAX_SAMPLES = 3000
MAX_CHARS = 4000

_SECRET = re.compile(r"api_?key|password|secret|(auth|access|hf|bearer)_?token|authorization", re.IGNORECASE)
