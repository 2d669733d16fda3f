"""Every rollout on disk: a JSON line a sample under OUTPUT_DIR/rollouts, one file for each split.

With token ids and log-probabilities (`--save_token_ids`) the record of a step is complete: the step can be
trained on again from it (`open_instruct.rollout.replay`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flip_plugin.files.jsonl import JsonlWriter
from open_instruct.data.types import Group, ScoredSample


class RolloutWriter:
    """Appends groups to train.jsonl and eval.jsonl in `folder`; what is there already stays."""

    def __init__(self, folder: str | Path, *, token_ids: bool = False) -> None:
        self._token_ids = token_ids
        self._writers = {split: JsonlWriter(Path(folder) / f"{split}.jsonl") for split in ("train", "eval")}

    def write(self, groups: list[Group], *, training_step: int, split: str) -> None:
        """All samples of `groups`; `training_step` is that of the metrics line they belong to."""
        for group in groups:
            for i, sample in enumerate(group.samples):
                record = {"training_step": training_step, "split": split, "sample_index": i}
                record |= rollout_record(group, sample)
                if self._token_ids:
                    record |= token_record(group, sample)
                self._writers[split].write(record)


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


def token_record(group: Group, scored: ScoredSample) -> dict[str, Any]:
    """What `rollout_record` lacks for training on the sample again.

    P prompt ids, T response ids, T log-probabilities in nats, the reward's other parts, and each verifier's own score.
    """
    return {
        "prompt_token_ids": group.row["input_ids_prompt"],
        "token_ids": scored.sample.token_ids,
        "logprobs": scored.sample.logprobs,
        "format_reward": scored.format_reward,
        "overlong": scored.overlong,
        "verifiers": {
            name: {"score": result.score, "status": result.status, "details": result.details}
            for name, result in scored.per_verifier.items()
        },
    }
