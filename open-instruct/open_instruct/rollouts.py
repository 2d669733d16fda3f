"""Every rollout on disk: a JSON line a sample under OUTPUT_DIR/rollouts, one file for each split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from open_instruct.data_types import Group, ScoredSample
from open_instruct.records_io import JsonlWriter, drop_steps_after


class RolloutWriter:
    """Appends groups to rollouts/train.jsonl and rollouts/eval.jsonl.

    `resume_step`: the step that a continued run starts after; later lines are dropped, as those steps
    will happen again.
    """

    def __init__(self, output_dir: str, resume_step: int | None = None) -> None:
        folder = Path(output_dir) / "rollouts"
        if resume_step is not None:
            for path in folder.glob("*.jsonl"):
                drop_steps_after(path, resume_step)
        self._writers = {split: JsonlWriter(folder / f"{split}.jsonl") for split in ("train", "eval")}

    def write(self, groups: list[Group], *, training_step: int, split: str) -> None:
        """All samples of `groups`; `training_step` is that of the metrics line they belong to."""
        for group in groups:
            for i, sample in enumerate(group.samples):
                record = {"training_step": training_step, "split": split, "sample_index": i}
                self._writers[split].write(record | rollout_record(group, sample))


def rollout_record(group: Group, scored: ScoredSample) -> dict[str, Any]:
    """One sample as it is written: prompt, response, score or status, and what the judge made of it."""
    row = group.row
    details: dict[str, Any] = {}
    reasoning = None
    for result in scored.per_verifier.values():
        details |= result.details or {}
        reasoning = reasoning or result.reasoning
    return {
        "prompt_index": row["index"],
        "messages": row["messages"],
        "response": scored.response,
        "ground_truth": row["ground_truth"],
        "dataset": row["dataset"],
        "score": scored.score,
        "status": scored.status,
        "reward": scored.reward,
        "advantage": scored.advantage,
        "finish_reason": scored.sample.finish_reason,
        "num_tokens": len(scored.sample.token_ids),
        "inferred_instruction": details.get("inferred_instruction"),
        "reasoning": reasoning,
        "echo": details.get("echo"),
        "error": details.get("error"),
        "reported": scored.reported,
        "weights_version": scored.sample.weights_version,
        "judge_seconds": round(scored.judge_seconds, 4),
    }
