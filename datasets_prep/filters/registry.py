"""The filters of single rows, in their order, and the class that asks them. A new filter is a new entry here.

Each row is counted once, at the first filter that leaves it out; `card.json` and `card.md` have a line for each
filter. There are three steps, cheap questions first:

1. `LABEL_FILTERS` ask the source's labels, before a prompt is read;
2. reading the prompt leaves out what `READING` names;
3. `PROMPT_FILTERS` ask the prompt itself.

To add one: write a function `keep` and enter it with a name (the key of its count) and a reason (its line on the
card). What it may be set to is a field of `settings.Settings`, with a flag in `prepare.py`. Raise `settings.RULES`,
so that work of an older version is not continued. What needs other rows (duplicates, sampling) comes later, in
`writing/sampling.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from datasets_prep.filters.decontaminate import Decontaminator
from datasets_prep.filters.languages import Detector, label_names
from datasets_prep.filters.lengths import TokenCounter
from datasets_prep.filters.normalise import normalise, prompt_text, sampling_key
from datasets_prep.filters.turns import Malformed, cut_turns
from datasets_prep.reading.batches import Batch
from datasets_prep.settings import Settings
from flip_plugin.prompts.target import NoTarget, find_target
from flip_plugin.rows.checks import DatasetError
from flip_plugin.rows.reading import Defect

MAX_EXAMPLES = 5
Item = TypeVar("Item")


@dataclass
class Tools:
    """What a worker loads once. Without a detector or a decontaminator, no row is left out by it."""

    counter: TokenCounter
    detector: Detector | None = None
    decontaminator: Decontaminator | None = None


@dataclass
class Prompt:
    """A prompt that has been read: its place in the batch, its turns, and the text to be recovered.

    `tokens` is the length of that text, `all_tokens` that of all turns together, once they have been measured.
    """

    place: int
    messages: list[dict[str, str]]
    target: str
    labelled_language: bool
    tokens: int = 0
    all_tokens: int = 0


@dataclass(frozen=True)
class LabelFilter:
    """A filter by a label of the source.

    name    the key of its count, and the label's name in `Batch`
    reason  why rows are left out, for card.md
    wanted  whether the settings ask for it
    keep    (label of a row, settings) -> whether the row stays; a row whose label is empty has None
    """

    name: str
    reason: str
    wanted: Callable[[Settings], bool]
    keep: Callable[[Any, Settings], bool]


@dataclass(frozen=True)
class PromptFilter:
    """A filter by the prompt itself.

    name     the key of its count
    reason   why rows are left out, for card.md
    keep     (prompt, settings, tools) -> whether the row stays
    measure  called before, with all prompts at once, for what is cheaper that way
    """

    name: str
    reason: str
    keep: Callable[[Prompt, Settings, Tools], bool]
    measure: Callable[[Sequence[Prompt], Settings, Tools], None] | None = None


# --- what the filters ask ---------------------------------------------------------------------------------


def has_language(label: str | None, settings: Settings) -> bool:
    """Whether a label, a word or a code, names the language to keep."""
    return (label or "").lower() in label_names(settings.language)


def is_in_language(prompt: Prompt, settings: Settings, tools: Tools) -> bool:
    """Whether a prompt without a label is in the language to keep, by the detector."""
    return prompt.labelled_language or tools.detector is None or tools.detector.accepts(prompt.target)


def measure_targets(prompts: Sequence[Prompt], settings: Settings, tools: Tools) -> None:
    """Note the length of each text to be recovered."""
    counts = tools.counter.count([prompt.target for prompt in prompts], settings.max_tokens)
    for prompt, tokens in zip(prompts, counts, strict=True):
        prompt.tokens = tokens


def measure_prompts(prompts: Sequence[Prompt], settings: Settings, tools: Tools) -> None:
    """Note the length of all turns of each prompt; a lone turn has been measured already."""
    for prompt in prompts:
        prompt.all_tokens = prompt.tokens
    several = [prompt for prompt in prompts if len(prompt.messages) > 1]
    texts = ["\n".join(turn["content"] for turn in prompt.messages) for prompt in several]
    for prompt, tokens in zip(several, tools.counter.count(texts, settings.max_prompt_tokens), strict=True):
        prompt.all_tokens = tokens


def is_clean(prompt: Prompt, settings: Settings, tools: Tools) -> bool:
    """Whether a prompt holds no prompt of an evaluation."""
    if tools.decontaminator is None:
        return True
    return not tools.decontaminator.contaminated(*(normalise(turn["content"]) for turn in prompt.messages))


# --- the filters, in the order of asking ------------------------------------------------------------------

LABEL_FILTERS = (
    LabelFilter(
        "language", "another language, by the source's label", lambda s: s.language is not None, keep=has_language
    ),
    LabelFilter(
        "toxic", "toxic, by the source's label", lambda s: not s.keep_toxic, keep=lambda label, _: label is False
    ),
    LabelFilter(
        "redacted",
        "personal data was redacted, by the source's label",
        lambda s: not s.keep_redacted,
        keep=lambda label, _: label is False,
    ),
)
# Name -> reason, of what reading the prompt leaves out.
READING = {
    "malformed": "malformed: cannot be read, lacks a column, or has another type in one",
    "empty": "nothing to recover: no user turn, or an empty one",
}
PROMPT_FILTERS = (
    PromptFilter("language_detected", "another language, by the detector", is_in_language),
    PromptFilter(
        "too_short",
        "text to recover too short",
        lambda prompt, settings, _: prompt.tokens >= settings.min_tokens,
        measure=measure_targets,
    ),
    PromptFilter(
        "too_long", "text to recover too long", lambda prompt, settings, _: prompt.tokens <= settings.max_tokens
    ),
    PromptFilter(
        "prompt_too_long",
        "prompt too long",
        lambda prompt, settings, _: prompt.all_tokens <= settings.max_prompt_tokens,
        measure=measure_prompts,
    ),
    PromptFilter("contaminated", "holds an evaluation prompt", is_clean),
)

# The labels that a row may have; what is None in its batch if it has none.
LABELS = tuple(one.name for one in LABEL_FILTERS)
# Name -> reason of every filter, in order: the lines of the card.
REASONS = {one.name: one.reason for one in LABEL_FILTERS} | READING | {one.name: one.reason for one in PROMPT_FILTERS}


# --- asking them ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """A row that passed: its place in the order of sampling, its id in the source, its turns as JSON, its length."""

    key: int
    id: str
    messages: str
    tokens: int


class RowFilter:
    """Filters batches of one file and counts. `unlabelled` counts rows without a label of the file or row."""

    def __init__(self, settings: Settings, tools: Tools, file: str) -> None:
        self.settings, self.tools, self.file = settings, tools, file
        self.counts: Counter[str] = Counter()
        self.unlabelled: Counter[str] = Counter()
        self._malformed: list[Defect] = []

    @property
    def examples(self) -> list[dict[str, Any]]:
        """The first malformed rows, as fields of `Defect`, without what they hold."""
        return [asdict(replace(defect, quote="")) for defect in self._malformed]

    def __call__(self, batch: Batch) -> list[Candidate]:
        """The candidates of a batch. Raises `DatasetError` for a malformed row unless those are to be skipped."""
        self.counts["read"] += batch.size + len(batch.defects)
        for defect in batch.defects:
            self._leave_out(defect)
        prompts = self._read(batch, self._places(batch))
        for one in PROMPT_FILTERS:
            if one.measure is not None:
                one.measure(prompts, self.settings, self.tools)
            prompts = self._keep(one.name, prompts, [one.keep(p, self.settings, self.tools) for p in prompts])
        self.counts["candidates"] += len(prompts)
        return [self._candidate(batch, prompt) for prompt in prompts]

    def _keep(self, name: str, items: list[Item], kept: Sequence[bool]) -> list[Item]:
        left = [item for item, keep in zip(items, kept, strict=True) if keep]
        self.counts[name] += len(items) - len(left)
        return left

    def _places(self, batch: Batch) -> list[int]:
        """Places whose labels are right. A row whose label is empty though its file has one is left out."""
        places = list(range(batch.size))
        for one in LABEL_FILTERS:
            labels = getattr(batch, one.name)
            if labels is None:
                self.unlabelled[one.name] += batch.size
            elif one.wanted(self.settings):
                places = self._keep(one.name, places, [one.keep(labels[place], self.settings) for place in places])
        return places

    def _read(self, batch: Batch, places: list[int]) -> list[Prompt]:
        prompts = []
        first = self.settings.turns == "first"
        for place, value in zip(places, batch.prompts(places, first), strict=True):
            try:
                messages = cut_turns(value, first)
                # As flip_plugin reads it: what is written down is what a reward will ask for.
                target = find_target(messages, self.settings.target).instruction if messages else ""
            except NoTarget:
                target = ""
            except Malformed as error:
                self._leave_out(Defect(self.file, batch.number(place), error.reason, quote=error.quote))
                continue
            # With a system prompt to recover, the turn that it is about may still be blank.
            if not target or not messages[-1]["content"].strip():
                self.counts["empty"] += 1
                continue
            prompts.append(Prompt(place, messages, target, batch.language is not None))
        return prompts

    def _leave_out(self, defect: Defect) -> None:
        if not self.settings.skip_malformed:
            text = str(defect)
            advice = " Or" if text.endswith(".") else ". Repair or remove the row, or"
            raise DatasetError(f"{text}{advice} count and leave out such rows: --skip_malformed")
        self.counts["malformed"] += 1
        # Rows of other columns come in other batches: not in the file's order.
        self._malformed = sorted([*self._malformed, defect], key=lambda defect: defect.number)[:MAX_EXAMPLES]

    def _candidate(self, batch: Batch, prompt: Prompt) -> Candidate:
        key = sampling_key(prompt_text(prompt.messages), self.settings.seed)
        name = (batch.id[prompt.place] if batch.id else None) or ""
        return Candidate(key, name, json.dumps(prompt.messages, ensure_ascii=False), prompt.tokens)
