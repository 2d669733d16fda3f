"""The parser against strings made to break it: it never raises, and nothing is slow.

The strings, and what is checked of each, are those of ``benchmarks/parser_fuzz.py``.
"""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flip_plugin.replies.parsing import parse_flip_reply

PATH = Path(__file__).parents[3] / "benchmarks" / "parser_fuzz.py"
spec = importlib.util.spec_from_file_location("parser_fuzz", PATH)
assert spec is not None and spec.loader is not None
fuzz = importlib.util.module_from_spec(spec)
sys.modules["parser_fuzz"] = fuzz
spec.loader.exec_module(fuzz)

OPEN = '{"INFERRED INSTRUCTION": "'
# A beginning, a unit to repeat, an end.
HOSTILE = {
    "braces": ("", "{", ""),
    "brackets": ("", "[", ""),
    "nested objects": ("", '{"a":', ""),
    "nested under the key": ("", '{"INFERRED INSTRUCTION":', ""),
    "nested arrays of objects": ("", '[{"a":', ""),
    "nested singles": ("", "{'INSTRUCTION': {", "'"),
    "siblings": ("[", "{},", "{}]"),
    "objects": ("", '{"a":1}', ""),
    "keys": ("{", '"a":1,', '"b":2}'),
    "the key": ("{", '"INSTRUCTION":1,', '"b":2}'),
    "the key, repaired": ("{", "'INSTRUCTION':1,", "}"),
    "quotes": (OPEN, '"', ""),
    "quotes and braces": (OPEN, '"}', ""),
    "quotes and commas": (OPEN, '",', ""),
    "quotes and keys": (OPEN, '", "b": "c{', ""),
    "quoted words": (OPEN, 'a" "', "x"),
    "unclosed": ("", '{"a":" ', ""),
    "unclosed singles": ("", "{'a':' ", ""),
    "backslashes": (OPEN, "\\", ""),
    "escaped quotes": (OPEN, '\\"', ""),
    "unicode escapes": (OPEN, "\\u00e9", "x"),
    "surrogate escapes": (OPEN, "\\ud83d", '",}'),
    "half escapes": (OPEN, "\\u12", '",}'),
    "spaces": (OPEN, " ", '"x'),
    "newlines": ("x", "\n", "```x"),
    "newlines after a quote": (OPEN, '"\n\n\n\n', ""),
    "spaces in the key": ("{INSTRUCTION", " ", ": x}"),
    "digits": ('{"SCORE": ', "9", "}"),
    "digits in a string": ('{"SCORE": "', "9", '"}'),
    "digits in many objects": ('{"x":' * 500, "9", ""),
    "exponent": ('{"SCORE": 1e', "9", "}"),
    "score with spaces": ('{"SCORE": "8', " ", '/11"}'),
    "bare words": ("{INSTRUCTION: ", "word, ", ""),
    "comments": ("{INSTRUCTION: 'x' ", "// ", ""),
    "comments after quotes": (OPEN, '" // ', ""),
    "fences": ("```json", "```", ""),
    "fenced objects": ("", '```json\n{"', ""),
    "open thinking": ("", "<think>", ""),
    "closed thinking": ("", "</think>", '{"INSTRUCTION": "x"}'),
    "half tags": ("", "<think", "{"),
    "NUL": (OPEN, "\0", '"}'),
    "lone surrogates": (OPEN, "\ud800", '"}'),
    "marks": ("\ufeff", "\ufeff", "{"),
    "curly": ("{“INSTRUCTION”: “", "”“", ""),
    "parentheses": ('{"INSTRUCTION": ', "(", ""),
    "key in prose": ("", "instruction: ", "{"),
    "strings in strings": ('"', '\\"', '"'),
}


@pytest.mark.parametrize("size", [1_000, 10_000, 49_900, 100_000])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_replies_cost_little(name, size):
    start, unit, end = HOSTILE[name]
    text = (start + unit * (size // len(unit)))[: size - len(end)] + end
    fuzz.check(text)
    assert fuzz.slowest(text, limit=0.01) < fuzz.LIMIT_S


def test_twenty_thousand_strings():
    worst, kinds, read = 0.0, set(), 0
    for kind, text in fuzz.strings(seed=20, count=20_000):
        kinds.add(kind)
        fuzz.check(text)
        read += parse_flip_reply(text).instruction is not None
        if kind == "large":
            worst = max(worst, fuzz.slowest(text))
    assert worst < fuzz.LIMIT_S
    assert kinds == {"soup", "mutated", "wrapped", "characters", "large"}
    assert 2_000 < read < 10_000  # neither all nonsense nor all good


def test_the_strings_come_again():
    assert list(fuzz.strings(3, 200)) == list(fuzz.strings(3, 200)) != list(fuzz.strings(4, 200))


KEYS = st.sampled_from(["INFERRED INSTRUCTION", "Instruction", "REASONING", "SCORE", "BEST_RESPONSE_INDEX", "better"])
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12) | KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(fuzz.PIECES), max_size=30).map("".join)))
def test_no_text_raises(text):
    fuzz.check(text)


@settings(max_examples=200, deadline=None)
@given(JSON_VALUES, st.integers(0, 40), st.booleans())
def test_no_json_raises_whole_or_cut(value, cut, indent):
    text = json.dumps(value, indent=2 if indent else None)
    fuzz.check(text)
    fuzz.check(text[: max(len(text) - cut, 0)])
    fuzz.check(repr(value))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_million_strings():
    for kind, text in fuzz.strings(seed=0, count=1_000_000):
        fuzz.check(text)
        assert kind != "large" or fuzz.slowest(text) < fuzz.LIMIT_S, text[:200]
