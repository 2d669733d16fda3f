"""What `ifbench.yaml` calls. The prompts and the checkers come from the package ``ifbench``, which is optional.

A response follows an instruction strictly as it stands, and loosely when it does so in one of eight
readings: without asterisks or with, without its first line, its last line, both or neither. The
benchmark's paper reports the loose accuracy over prompts, at temperature 0.
"""

from __future__ import annotations

import json
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any


def rows(**settings: Any) -> dict[str, Any]:
    """The benchmark's prompts, from the file in the package; lm-eval passes the model's arguments, unused."""
    from datasets import Dataset

    with Path(import_module("ifbench").data_path()).open(encoding="utf-8") as lines:
        prompts = [json.loads(line) for line in lines if line.strip()]
    # As text, since each instruction has arguments of its own and a table would give all of them to all.
    kept = [
        {"prompt": one["prompt"], "requirements": json.dumps([one["instruction_id_list"], one["kwargs"]])}
        for one in prompts
    ]
    return {"test": Dataset.from_list(kept)}


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """1 for a response that follows every instruction of its prompt, else 0; loosely and strictly."""
    names, arguments = json.loads(doc["requirements"])
    checkers = [_checker(name, given, doc["prompt"]) for name, given in zip(names, arguments, strict=True)]
    return {
        "prompt_level_loose_acc": float(all(_followed(one, readings(results[0])) for one in checkers)),
        "prompt_level_strict_acc": float(all(_followed(one, [results[0]]) for one in checkers)),
    }


def readings(response: str) -> list[str]:
    r"""The response in the eight ways in which the loose accuracy reads it.

    >>> readings("Sure!\n*Yes.*")[:4]
    ['Sure!\n*Yes.*', 'Sure!\nYes.', 'Sure!', 'Sure!']
    """
    lines = response.split("\n")
    texts = []
    for first, last in product((0, 1), (len(lines), -1)):
        text = response if (first, last) == (0, len(lines)) else "\n".join(lines[first:last]).strip()
        texts += [text, text.replace("*", "")]
    return texts


def _checker(name: str, arguments: dict[str, Any] | None, prompt: str) -> Any:
    checker = import_module("ifbench.instructions_registry").INSTRUCTION_DICT[name](name)
    checker.build_description(**{key: value for key, value in (arguments or {}).items() if value is not None})
    if "prompt" in (checker.get_instruction_args() or {}):
        checker.build_description(prompt=prompt)
    return checker


def _followed(checker: Any, texts: list[str]) -> bool:
    return any(text.strip() and checker.check_following(text) for text in texts)
