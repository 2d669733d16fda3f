"""The older labels of instruction-following data, by function name, in terms of IFEval's instructions.

`requirement_of_function` keeps the meaning of the function, but counts as lm-eval does: words are runs of letters
and digits, a letter counts in either case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from open_instruct.verifiers.base import BadLabel

Check = list[Any]  # [instruction_id, kwargs]


def requirement_of_function(label: Mapping[str, Any]) -> dict[str, Any]:
    """A requirement of `flip_plugin.answers.instructions` from ``{"func_name": ..., arguments}``.

    Arguments that are null are ignored. Raises `BadLabel` for an unknown function, or arguments that it does not take.
    """
    name = label["func_name"]
    if name not in FUNCTIONS:
        raise BadLabel(f"names the function {name!r}; ifeval knows {', '.join(FUNCTIONS)}")
    arguments = {key: value for key, value in label.items() if key != "func_name" and value is not None}
    parameters, make = FUNCTIONS[name]
    if missing := [key for key in parameters if key not in arguments]:
        raise BadLabel(f"lacks {', '.join(missing)}, which {name} takes")
    try:
        checks = make(*(arguments[key] for key in parameters))
    except (TypeError, ValueError, AttributeError) as error:
        raise BadLabel(f"has unusable arguments for {name}: {error}") from None
    requirement: dict[str, Any] = {"name": name, "checks": checks}
    if name == "validate_choice":
        requirement["any"] = True
    if name == "verify_paragraph_count":
        requirement["replace"] = ["* * *", "***"]  # their divider, and lm-eval's
    return requirement


def _between(instruction: str, count: str, relation: str, low: int, high: int | None, **more: Any) -> list[Check]:
    """At least `low` and at most `high` of what `instruction` counts."""
    checks = [[instruction, {**more, count: low, relation: "at least"}]] if low > 0 or high is None else []
    if high is not None:
        checks.append([instruction, {**more, count: high + 1, relation: "less than"}])
    return checks


def _bounds(number: int, quantifier: str, tolerance: int) -> tuple[int, int | None]:
    """The least and the most that a quantifier allows; "around" is within `tolerance`."""
    known = {
        "at least": (number, None),
        "at most": (0, number),
        "around": (number - tolerance, number + tolerance),
    }
    if quantifier not in known:
        raise ValueError(f"the quantifier {quantifier!r} is none of {', '.join(known)}")
    return known[quantifier]


def _tenth(number: int) -> int:
    return max(round(number * 0.1), 1)


def _words(number: int, quantifier: str) -> list[Check]:
    name = "length_constraints:number_words"
    return _between(name, "num_words", "relation", *_bounds(number, quantifier, _tenth(number)))


def _sentences(number: int, quantifier: str) -> list[Check]:
    return _between("length_constraints:number_sentences", "num_sentences", "relation", *_bounds(number, quantifier, 1))


def _capital_words(number: int, quantifier: str) -> list[Check]:
    name, bounds = "change_case:capital_word_frequency", _bounds(number, quantifier, _tenth(number))
    return _between(name, "capital_frequency", "capital_relation", *bounds)


def _keyword_count(word: str, number: int) -> list[Check]:
    keyword = rf"\b{re.escape(word)}\b"
    return _between("keywords:frequency", "frequency", "relation", number, number, keyword=keyword)


def _letter_count(letter: str, number: int) -> list[Check]:
    return _between("keywords:letter_frequency", "let_frequency", "let_relation", number, number, letter=letter)


def _escaped(words: list[str]) -> list[str]:
    return [re.escape(word) for word in words]


def _simple(instruction: str, *names: str) -> Callable[..., list[Check]]:
    """One check, whose arguments are those of the function under the names of lm-eval."""
    return lambda *values: [[instruction, dict(zip(names, values, strict=True))]]


# function name -> its arguments, and what makes the checks from them. lm-eval reads keywords as regular expressions.
FUNCTIONS: dict[str, tuple[tuple[str, ...], Callable[..., list[Check]]]] = {
    "verify_keywords": (("keyword_list",), lambda words: [["keywords:existence", {"keywords": _escaped(words)}]]),
    "verify_keyword_frequency": (("word", "N"), _keyword_count),
    "validate_forbidden_words": (
        ("forbidden_words",),
        lambda words: [["keywords:forbidden_words", {"forbidden_words": _escaped(words)}]],
    ),
    "verify_letter_frequency": (("letter", "N"), _letter_count),
    "validate_response_language": (("language",), _simple("language:response_language", "language")),
    "verify_paragraph_count": (("N",), _simple("length_constraints:number_paragraphs", "num_paragraphs")),
    "validate_word_constraint": (("N", "quantifier"), _words),
    "verify_sentence_constraint": (("N", "quantifier"), _sentences),
    "validate_paragraphs": (
        ("N", "first_word", "i"),
        _simple("length_constraints:nth_paragraph_first_word", "num_paragraphs", "first_word", "nth_paragraph"),
    ),
    "verify_postscript": (("postscript_marker",), _simple("detectable_content:postscript", "postscript_marker")),
    "validate_placeholders": (("N",), _simple("detectable_content:number_placeholders", "num_placeholders")),
    "verify_bullet_points": (("N",), _simple("detectable_format:number_bullet_lists", "num_bullets")),
    "validate_title": ((), _simple("detectable_format:title")),
    "validate_choice": (
        ("options",),
        lambda options: [["keywords:existence", {"keywords": [word]}] for word in _escaped(options)],
    ),
    "validate_highlighted_sections": (
        ("N",),
        _simple("detectable_format:number_highlighted_sections", "num_highlights"),
    ),
    "validate_sections": (
        ("N", "section_splitter"),
        _simple("detectable_format:multiple_sections", "num_sections", "section_spliter"),
    ),
    "validate_json_format": ((), _simple("detectable_format:json_format")),
    "validate_repeat_prompt": (("original_prompt",), _simple("combination:repeat_prompt", "prompt_to_repeat")),
    "validate_two_responses": ((), _simple("combination:two_responses")),
    "validate_uppercase": ((), _simple("change_case:english_capital")),
    "validate_lowercase": ((), _simple("change_case:english_lowercase")),
    "validate_frequency_capital_words": (("N", "quantifier"), _capital_words),
    "validate_end": (("end_phrase",), _simple("startend:end_checker", "end_phrase")),
    "validate_quotation": ((), _simple("startend:quotation")),
    "validate_no_commas": ((), _simple("punctuation:no_comma")),
}
