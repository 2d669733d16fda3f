"""Training again on recorded rollouts: a step's groups come from disk instead of engines and judge.

Samples, log-probabilities and rewards are taken as they were recorded (`--save_token_ids`); advantages,
filters, packing and the loss are computed anew. With the flags of the recording run the parameters are the
same step by step; with another loss or learning rate, two settings are compared on the same samples.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flip_plugin.files.jsonl import whole_lines
from open_instruct.config.args import Args, FlagError
from open_instruct.data.types import Group, Sample, ScoredSample
from open_instruct.verifiers.base import VerificationResult


class ReplayError(ValueError):
    """The recorded rollouts do not fit the run; the text says where and what to do."""


class RolloutReplay:
    """The groups of each step, as ``train.jsonl`` in the folder of `--replay_rollouts` has them.

    `rows` are the run's prompts: a recorded sample must belong to one of them. Raises `FlagError` where there
    is nothing to replay.
    """

    def __init__(self, args: Args, rows: list[dict[str, Any]]) -> None:
        folder, self._args = str(args.replay_rollouts), args
        self.path = Path(folder) / "train.jsonl"
        if not self.path.is_file():
            raise FlagError(f"--replay_rollouts {folder}: there is no train.jsonl. Give a run's rollouts folder.")
        self._rows = {row["index"]: row for row in rows}
        self._spans = _spans_of_steps(self.path)

    def check_steps(self, first: int, last: int) -> None:
        """Raises `FlagError` unless all steps from `first` to `last` (as metrics.jsonl counts them) are there."""
        missing = [step for step in range(first, last + 1) if step not in self._spans]
        if missing:
            recorded = f"steps {min(self._spans)} to {max(self._spans)}" if self._spans else "no step"
            raise FlagError(
                f"--replay_rollouts: {self.path} holds {recorded}, but not step {missing[0]}. "
                "Lower --total_episodes, or replay a longer run."
            )

    def groups(self, training_step: int) -> list[Group]:
        """The groups of a step, in the order in which they were recorded. Raises `ReplayError`."""
        if training_step not in self._spans:
            raise ReplayError(f"{self.path} holds no step {training_step}")
        groups: list[Group] = []
        for record in self._records(training_step):
            if record["sample_index"] == 0:
                groups.append(Group(self._row(record), [], 0.0, 0.0))
            groups[-1].samples.append(_scored_sample(record, str(self.path)))
        self._check_size(groups, training_step)
        return groups

    def _check_size(self, groups: list[Group], training_step: int) -> None:
        args, where = self._args, f"{self.path}, step {training_step}"
        for group in groups:
            if len(group.samples) != args.num_samples_per_prompt_rollout:
                raise ReplayError(
                    f"{where}: {len(group.samples)} samples of a prompt, where --num_samples_per_prompt_rollout is "
                    f"{args.num_samples_per_prompt_rollout}"
                )
        if len(groups) < args.num_unique_prompts_rollout and args.no_resampling_pass_rate is None:
            raise ReplayError(
                f"{where}: {len(groups)} prompts, where --num_unique_prompts_rollout is "
                f"{args.num_unique_prompts_rollout}. Was the run killed while it recorded this step?"
            )

    def _records(self, training_step: int) -> Iterator[dict[str, Any]]:
        start, end = self._spans[training_step]
        with self.path.open("rb") as file:
            file.seek(start)
            for line in file.read(end - start).splitlines():
                yield json.loads(line)

    def _row(self, record: dict[str, Any]) -> dict[str, Any]:
        row = self._rows.get(record["prompt_index"])
        same = row is not None and row["messages"] == record["messages"]
        if (
            row is None
            or not same
            or row["input_ids_prompt"] != record.get("prompt_token_ids", row["input_ids_prompt"])
        ):
            raise ReplayError(
                f"{self.path}, step {record['training_step']}: prompt {record['prompt_index']} is not this run's. "
                "Replay with the --dataset_mixer_list and tokenizer of the run that recorded it."
            )
        return row


def _spans_of_steps(path: Path) -> dict[int, tuple[int, int]]:
    """Where each step's lines are, (start, end) in bytes: a step is written in one go."""
    spans: dict[int, tuple[int, int]] = {}
    start = 0
    for line in whole_lines(path):  # one that a kill cut is left out: its step is not whole either, and will be missed
        step = _step_of(line.data)
        if step is None:
            raise ReplayError(f"{path}, line {line.number}: not a rollout")
        first, last = spans.get(step, (start, start))
        if last != start:
            raise ReplayError(f"{path}, line {line.number}: the samples of step {step} do not stand together")
        spans[step] = (first, line.end)
        start = line.end
    return spans


def _step_of(line: bytes) -> int | None:
    """The number behind the first key of a rollout's line, without reading the rest of it."""
    key, _, rest = line.partition(b":")
    number = rest.partition(b",")[0].strip()
    return int(number) if key == b'{"training_step"' and number.isdigit() else None


def _scored_sample(record: dict[str, Any], path: str) -> ScoredSample:
    if "token_ids" not in record or "logprobs" not in record:
        raise ReplayError(f"{path} holds no token ids: record the run with --save_token_ids")
    sample = Sample(record["token_ids"], record["logprobs"], record["finish_reason"], record["weights_version"])
    return ScoredSample(
        sample,
        record["response"],
        reward=record["reward"],
        score=record["score"],
        status=record["status"],
        per_verifier={
            name: VerificationResult(one["score"], status=one["status"], details=one["details"])
            for name, one in record["verifiers"].items()
        },
        reported=record["reported"],
        judge_seconds=record["judge_seconds"],
        format_reward=record["format_reward"],
        overlong=record["overlong"],
    )
