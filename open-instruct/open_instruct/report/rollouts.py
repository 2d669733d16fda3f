"""The rollouts that a page shows: whole groups, chosen evenly, and what the page holds of each sample."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from flip_plugin.files.jsonl import read_jsonl
from flip_plugin.pages.text import as_text, clip, mark_echo, mark_shared, spread, visible
from open_instruct.report.numbers import MAX_CHARS, Row, number
from open_instruct.report.reading import Run, rows

MAX_SAMPLES = 3000  # rollouts in the page: about 10 MB at 3 KB each, which a phone still opens
#: Groups with a missing score come first, up to this share of the page: they are few, and what one looks for.
WITH_FAILURES = 0.2


class Place(NamedTuple):
    """Where a rollout belongs: `key` is its step and split, `group` the number of its group in the order of reading."""

    key: tuple[float, str]
    group: int
    missing: bool


def read_rollouts(run: Run, limit: int, prompts: Prompts) -> tuple[list[Row], Row]:
    """At most `limit` samples for the page, and totals over all of them.

    Two passes, so that a long run's rollouts never have to fit into memory: the first
    counts and notes where each sample belongs, the second keeps the chosen ones. A file
    that grows in between only gains lines at its end, past what was counted.
    """
    places: list[Place] = []
    statuses: Counter[str] = Counter()
    ends: list[int] = []
    for path in run.rollouts:
        places += _places(rows(path, run.notes), statuses, len(places))
        ends.append(len(places))
    chosen = choose_groups(places, limit)
    samples: list[Row] = []
    index = 0
    for path, end in zip(run.rollouts, ends, strict=True):
        for row in read_jsonl(path, bad_lines=[]):
            if index == end:
                break
            if index in chosen:
                samples.append(sample(row, prompts) | {"place": places[index].group})
            index += 1
    samples.sort(key=lambda one: one["step"] or 0)  # stable: a group stays together
    missing = sum(place.missing for place in places)
    return samples, {"samples": len(places), "missing": missing, "statuses": dict(statuses.most_common())}


def _places(records: Iterator[Row], statuses: Counter[str], first_group: int) -> Iterator[Place]:
    """A group is written in one go, its samples numbered from 0: another prompt or a lower number starts the next."""
    before: tuple[Any, ...] | None = None
    group = first_group
    last_sample: float = -1
    for row in records:
        key = (number(row.get("training_step")) or 0, str(row.get("split")))
        this, number_in_group = (*key, str(row.get("prompt_index"))), number(row.get("sample_index")) or 0
        if before is not None and (this != before or number_in_group <= last_sample):
            group += 1
        before, last_sample = this, number_in_group
        statuses[visible(row.get("status"))] += 1
        yield Place(key, group, number(row.get("score")) is None)


def choose_groups(places: Sequence[Place], limit: int) -> set[int]:
    """Positions of about `limit` samples in whole groups: those with a missing score first, the rest evenly.

    Every step and split gets as equal a share as there is, and within it groups at even distances.
    """
    if len(places) <= limit:
        return set(range(len(places)))
    by_group: dict[int, list[int]] = defaultdict(list)
    for position, place in enumerate(places):
        by_group[place.group].append(position)
    failed = [group for group, members in by_group.items() if any(places[i].missing for i in members)]
    first = _fit(by_group, failed, int(limit * WITH_FAILURES), places)
    left = limit - sum(len(by_group[group]) for group in first)
    rest = _fit(by_group, [group for group in by_group if group not in first], left, places)
    return {position for group in first | rest for position in by_group[group]}


def _fit(by_group: dict[int, list[int]], groups: Sequence[int], limit: int, places: Sequence[Place]) -> set[int]:
    """So many of the groups, evenly over steps and splits, that their samples come to about `limit`."""
    of_key: dict[Any, list[int]] = defaultdict(list)
    for group in groups:
        of_key[places[by_group[group][0]].key].append(group)
    keys = [key for key, members in of_key.items() for group in members for _ in by_group[group]]
    room = Counter(keys[i] for i in sorted(choose_evenly(keys, limit)))
    chosen: set[int] = set()
    spare = 0.0  # what was too little for another group goes to the next key
    for key, budget in room.items():
        size = sum(len(by_group[group]) for group in of_key[key]) / len(of_key[key])
        count = int((budget + spare) / size)
        spare += budget - count * size
        chosen.update(spread(of_key[key], count))
    return chosen


def choose_evenly(keys: Sequence[Any], limit: int) -> set[int]:
    """Positions of at most `limit` items, with as equal a share for each distinct key as there is.

    >>> sorted(choose_evenly(["a"] * 6 + ["b"], 3))
    [0, 3, 6]
    """
    places: dict[Any, list[int]] = defaultdict(list)
    for position, key in enumerate(keys):
        places[key].append(position)
    chosen: set[int] = set()
    # Smallest first: what a small key does not need is shared among those still to come.
    by_size = sorted(spread(sorted(places), limit), key=lambda key: len(places[key]))
    for done, key in enumerate(by_size):
        chosen.update(spread(places[key], (limit - len(chosen)) // (len(by_size) - done)))
    return chosen


class Prompts:
    """Prompts by number: every sample of a group has the same one, so the page holds it once."""

    def __init__(self) -> None:
        self.items: list[list[Row]] = []
        self._numbers: dict[str, int] = {}

    def add(self, messages: Any) -> int:
        """The number of this prompt: messages, or a text."""
        if not isinstance(messages, list):
            messages = [{"role": "user", "content": messages}]
        key = json.dumps(messages)
        if key not in self._numbers:
            self._numbers[key] = len(self.items)
            self.items.append([self._turn(message) for message in messages])
        return self._numbers[key]

    @staticmethod
    def _turn(message: Any) -> Row:
        if not isinstance(message, dict):
            return {"role": "?", **clip(message, MAX_CHARS)}
        return {"role": visible(message.get("role"))[:40], **clip(message.get("content"), MAX_CHARS)}


_NUMBERS = {
    "score": "score",
    "reward": "reward",
    "advantage": "advantage",
    "echo": "echo",
    "tokens": "num_tokens",
    "group": "prompt_index",
    "sample": "sample_index",
    "weights": "weights_version",
    "judge_s": "judge_seconds",
}


def sample(row: Row, prompts: Prompts) -> Row:
    """One rollout as the page holds it."""
    names = row.get("dataset") or []
    verifiers = [visible(name)[:80] for name in (names if isinstance(names, list) else [names])]
    real = _ground_truth(row.get("ground_truth"), verifiers)
    judged = row.get("inferred_instruction") is not None
    echoed = judged or number(row.get("echo"))
    shown: Row = {
        "step": number(row.get("training_step")),
        "split": visible(row.get("split")) or "train",
        "status": visible(row.get("status")),
        "finish": visible(row.get("finish_reason")),
        "verifiers": verifiers,
        "prompt": prompts.add(row.get("messages", row.get("prompt"))),
        "response": mark_echo(real if echoed else "", as_text(row.get("response")), MAX_CHARS),
        "reported": {visible(str(k)): number(v) for k, v in _mapping(row.get("reported")).items()},
    }
    for name, field in _NUMBERS.items():
        shown[name] = number(row.get(field))
    if judged:
        shown["overlap"] = mark_shared(real, as_text(row["inferred_instruction"]), MAX_CHARS)
    elif real:
        shown["truth"] = clip(real, MAX_CHARS)
    for name in ("reasoning", "error"):
        if row.get(name):
            shown[name] = clip(row[name], MAX_CHARS)
    return shown


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _ground_truth(value: Any, verifiers: list[str]) -> str:
    """The text to be recovered: with several verifiers, that of the one called flip."""
    if isinstance(value, list) and value:
        place = next((i for i, name in enumerate(verifiers) if "flip" in name.lower()), 0)
        value = value[min(place, len(value) - 1)]
    return as_text(value)
