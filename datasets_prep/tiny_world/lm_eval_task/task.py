"""What `tiny_world.yaml` calls: held-out instructions of the tiny world, and its rule as the metric.

lm-eval loads this file by its path, so it imports by full names.
"""

from typing import Any

from datasets_prep.tiny_world.language.grammar import satisfied
from datasets_prep.tiny_world.rows import make_rows

NUM_PROMPTS = 200
SEED = 1


def rows(**settings: Any) -> dict[str, Any]:
    """Instructions of the eval split, always the same ones; lm-eval passes the model's arguments, unused."""
    from datasets import Dataset

    made = make_rows("eval", NUM_PROMPTS, "flip", SEED)
    return {"test": Dataset.from_list([{"prompt": row["ground_truth"]} for row in made])}


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """The share of the instruction's attributes that the response shows, and whether it shows all of them."""
    verdicts = satisfied(doc["prompt"], results[0])
    share = sum(verdicts.values()) / len(verdicts)
    return {"constraints_satisfied": share, "all_satisfied": float(share == 1)}
