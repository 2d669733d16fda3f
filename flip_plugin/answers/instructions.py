"""IFEval's instructions (arXiv 2311.07911), checked by lm-eval's implementation. Runs in a worker.

A requirement is ``{"name", "checks": [[instruction_id, kwargs], ...], "any": bool, "replace": [old, new]}``: it is
met when all its checks are (with ``any``: one of them) on the response with `old` replaced.
"""

from __future__ import annotations

import re
from typing import Any

import langdetect
from lm_eval.tasks.ifeval.instructions_registry import INSTRUCTION_DICT

langdetect.DetectorFactory.seed = 0  # else the same response may get another language the next time

# These count with NLTK's sentence model, which does not come with NLTK.
PUNKT = "punkt_tab"
HOW_TO_GET_PUNKT = (
    f"NLTK's data {PUNKT!r} is not on this machine: python -m nltk.downloader {PUNKT} fetches it "
    "(NLTK_DATA names another folder)"
)
_LANGUAGE = "language:response_language"
_PROBE = "One sentence, to try the instruction on. And another!"
# Arguments that the library takes for regular expressions.
_PATTERNS = ("keywords", "keyword", "forbidden_words", "section_spliter", "postscript_marker")


def check_instructions(requirements: list[dict[str, Any]], response: str) -> dict[str, Any]:
    """`met`: a truth value for each requirement. `problem`, `status`: instead, why there is none."""
    try:
        return {"met": [_met(requirement, response) for requirement in requirements]}
    except LookupError as error:
        if PUNKT not in str(error):
            raise
        return {"status": "missing_data", "problem": HOW_TO_GET_PUNKT}
    except BadInstruction as error:
        return {"status": "unusable_label", "problem": str(error)}


def label_problem(requirements: list[dict[str, Any]]) -> str | None:
    """What is wrong with a label, found by trying it, or None."""
    answer = check_instructions(requirements, _PROBE)
    return answer.get("problem")


class BadInstruction(ValueError):
    """An instruction that the library does not have, or arguments that it cannot use."""


def _met(requirement: dict[str, Any], response: str) -> bool:
    if replace := requirement.get("replace"):
        response = response.replace(*replace)
    combine = any if requirement.get("any") else all
    return combine([_follows(name, kwargs, response) for name, kwargs in requirement["checks"]])


def _follows(instruction_id: str, kwargs: dict[str, Any], response: str) -> bool:
    instruction = _instruction(instruction_id, kwargs)
    if not response.strip():
        return False
    if instruction_id == _LANGUAGE and not _has_language(response):
        return False  # the library would count text in no language as in any
    try:
        return bool(instruction.check_following(response))
    except RecursionError:  # JSON within JSON within JSON
        return False


def _instruction(instruction_id: str, kwargs: dict[str, Any]) -> Any:
    if instruction_id not in INSTRUCTION_DICT:
        raise BadInstruction(f"names the instruction {instruction_id!r}; there are {', '.join(INSTRUCTION_DICT)}")
    instruction = INSTRUCTION_DICT[instruction_id](instruction_id)
    names = instruction.get_instruction_args_keys()
    if sorted(kwargs) != sorted(names):
        # The library would draw what is missing at random, another value for each response.
        raise BadInstruction(f"has the kwargs {sorted(kwargs)} for {instruction_id}, which takes {sorted(names)}")
    try:
        for name in set(kwargs).intersection(_PATTERNS):
            for pattern in [kwargs[name]] if isinstance(kwargs[name], str) else kwargs[name]:
                re.compile(pattern)
        instruction.build_description(**kwargs)
    except (ValueError, TypeError, KeyError, AttributeError, re.error) as error:
        raise BadInstruction(f"has unusable kwargs for {instruction_id}: {error}") from None
    used = instruction.get_instruction_args() or {}
    for name, value in kwargs.items():
        if _plain(used[name]) != _plain(value):
            raise BadInstruction(f"has {name} {value!r} for {instruction_id}, which that instruction cannot use")
    return instruction


def _plain(value: Any) -> Any:
    """What the library keeps of an argument: no case, no outer blanks, lists as sorted sets."""
    if isinstance(value, str):
        return value.strip().lower()
    return sorted({_plain(item) for item in value}) if isinstance(value, (list, tuple)) else value


def _has_language(text: str) -> bool:
    try:
        langdetect.detect(text)
    except langdetect.LangDetectException:
        return False
    return True
