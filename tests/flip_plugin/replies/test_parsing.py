import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flip_plugin.replies.parsing import (
    _NO_ANSWER,
    LONGEST_REPLY,
    parse_best_index,
    parse_better,
    parse_flip_reply,
    parse_score_reply,
)
from flip_plugin.replies.repair import repair_object

GOOD = json.dumps({"REASONING": "because", "INFERRED INSTRUCTION": "Write it"})
REASONING = 'It says "seven", it\'s {short}'
TRUTHS = [
    "Write a haiku about autumn leaves",
    'Explain the "law of large numbers" to a child, in 3 steps.',
    'Fix this: {"a": [1, 2], "b": "x"} so that it parses',
    "Translate:\n\nThe cat sat.\nThe dog's bowl\tis red",
    "Write f(x) = {x} in \\LaTeX, using \\frac{a}{b}",
    "Résumé — “quoted” text, naïve 😀",
    'List: a, b, c: each with "reason": why',
    "Explain what <think> and </think> do, and ``` fences",
]


@settings(max_examples=100, deadline=None)
@given(
    st.text(min_size=1).filter(lambda text: text.strip()),
    st.sampled_from(["", "Sure: ", "```json\n", "so {x} </think>", "<think>a</think>"]),
)
def test_any_instruction_survives_its_wrapping(instruction, before):
    # A surviving tag inside the string could not be told from a real one behind prose.
    instruction = instruction.replace("<", "(")
    assume(not _NO_ANSWER.fullmatch(instruction.strip()))  # the format's own placeholders are no instruction
    reply = before + json.dumps({"REASONING": "r", "INFERRED INSTRUCTION": instruction})
    assert parse_flip_reply(reply).instruction == instruction.strip()


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.characters(exclude_characters="{}")))
def test_text_without_an_object_is_never_an_instruction(text):
    assert parse_flip_reply(text).instruction is None


@pytest.mark.parametrize(
    ("reply", "instruction"),
    [
        (GOOD + ' {"INFERRED INSTRUCTION": "Second"}', "Second"),
        (GOOD + ' {"INFERRED INSTRUCTION": 3}', "Write it"),
        (GOOD + ' {"note": "done"}', "Write it"),
        (GOOD + ' {"INFERRED INSTRUCTION": "Second",}', "Second"),
        (GOOD + ' {"INFERRED INSTRUCTION": "Sec', "Write it"),
        ("{" + GOOD + "}", "Write it"),
        (f"[{GOOD}]", "Write it"),
        (f"[{GOOD},]", "Write it"),
        (f'[{GOOD}, {{"INFERRED INSTRUCTION": "Second"}}]', "Second"),
        ('{"result": ' + GOOD + "}", "Write it"),
        ('{"result": ' + GOOD + ",}", "Write it"),
        ('{"tags": [1, {"a": 2}], "INFERRED INSTRUCTION": "Write it",}', "Write it"),
        (f"Example: {{foo}} then {GOOD[:-1]},}}", "Write it"),
        ('{"INSTRUCTION": "short", "INFERRED INSTRUCTION": "exact"}', "exact"),
        ('{"INFERRED INSTRUCTION": "a", "INFERRED INSTRUCTION": "b"}', "b"),
        # Objects inside strings are text, whether the outer one decodes or is repaired.
        ('{"REASONING": "no {\\"INSTRUCTION\\": \\"x\\"}", "INSTRUCTION": "y"}', "y"),
        ("{'REASONING': 'no {\"INSTRUCTION\": \"x\"}', 'INSTRUCTION': 'y'}", "y"),
        ('{"REASONING": "no {"INSTRUCTION": "x"} here", "INSTRUCTION": "y"}', "y"),
        ('{"draft": "never closed, {"INSTRUCTION": "y"}', "y"),
        # Thinking, and what stands around an answer.
        (f"{GOOD} and then <think>more", "Write it"),
        (f"<think>{GOOD}</think>{{'INSTRUCTION': 'y'}}", "y"),
        (f"</think></think>{GOOD}", "Write it"),
        (f"<THINKING>{{</Thinking>{GOOD}", "Write it"),
        (f"<answer>{GOOD}</answer>", "Write it"),
        (
            f'<|channel|>analysis<|message|>{{"INSTRUCTION": "draft"}}<|end|><|channel|>final<|message|>{GOOD}',
            "Write it",
        ),
        (f"\ufeff{GOOD}", "Write it"),
        ('\ufeff```json\n{"INSTRUCTION": "Explain </think> tags"}\ufeff```', "Explain </think> tags"),
        (f"\ufeff\n```json\n{GOOD}\n```\n", "Write it"),
        (f"```\n{GOOD}```", "Write it"),
        (f"Two: {{a}} {{b: c}}\n\n```json\n{GOOD}\n```\nand {{d}}", "Write it"),
        (json.dumps(GOOD), "Write it"),
        (json.dumps(json.dumps(GOOD)), "Write it"),
        (json.dumps(f"```json\n{GOOD}\n```"), "Write it"),
        ("<think>" + "word " * LONGEST_REPLY + "</think>" + GOOD, "Write it"),
    ],
)
def test_which_object_counts(reply, instruction):
    assert parse_flip_reply(reply).instruction == instruction


@pytest.mark.parametrize(
    "spelling",
    [
        "Inferred Instruction",
        "inferred_instruction",
        "**INFERRED-INSTRUCTION**",
        "inferredInstructions",
        "Instruction:",
    ],
)
@pytest.mark.parametrize("end", ["}", ",}", ""])
def test_key_spellings(spelling, end):
    assert parse_flip_reply(f'{{"{spelling}": "Write it"{end}').instruction == "Write it"


def plain(text):
    return text


def escaped(text):
    return json.dumps(text)[1:-1]


def quotes_left(text):
    """JSON's escapes, but the quotes raw."""
    return json.dumps(text, ensure_ascii=False)[1:-1].replace('\\"', '"')


def form(write, quotes='""', between=", ", end="}", start="{"):
    opening, closing = quotes

    def reply(truth):
        fields = [("REASONING", REASONING), ("INFERRED INSTRUCTION", truth)]
        inside = between.join(f"{opening}{key}{closing}: {opening}{write(text)}{closing}" for key, text in fields)
        return f"{start}{inside}{end}"

    return reply


BROKEN = {
    "compact": form(escaped),
    "trailing comma": form(escaped, end=",\n}"),
    "no brace at the end": form(escaped, end=""),
    "cut before the last quote": lambda truth: form(escaped, end="")(truth)[:-1],
    "a quote missing": lambda truth: form(escaped, end="")(truth)[:-1] + "}",
    "no comma": form(escaped, between="\n"),
    "semicolon": form(escaped, between="; "),
    "comment": form(escaped, end=" // as asked\n}"),
    "more fields": form(quotes_left, end=', "CONFIDENCE": 0.9, "x": null, "y": [1, {}]}'),
    "raw quotes": form(quotes_left),
    "raw quotes, pretty, prose": form(quotes_left, start="Sure {x}:\n{\n  ", between=",\n  ", end="\n}\nDone."),
    "raw quotes, fenced": form(quotes_left, start="Here:\n```json\n{", end="}\n```\nHope it helps!"),
    "raw everything": form(plain),
    "Python": lambda truth: str({"REASONING": REASONING, "INFERRED INSTRUCTION": truth}),
    "single quotes, nothing escaped": form(plain, "''"),
    "curly quotes": form(plain, "“”"),
    "backticks": form(plain, "``"),
    "bare keys": lambda truth: (
        form(escaped)(truth)
        .replace('"REASONING"', "REASONING")
        .replace('"INFERRED INSTRUCTION"', "INFERRED INSTRUCTION")
    ),
    "stray escapes": lambda truth: form(escaped)(truth).replace("'", "\\'"),
}


@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("name", BROKEN)
def test_broken_objects_are_read_exactly_or_not_at_all(name, truth):
    found = parse_flip_reply(BROKEN[name](truth)).instruction
    # Tags that are text cannot be told from tags in what is no JSON, nor a fence from the end.
    missing_is_fair = "<think>" in truth or (name == "backticks" and "`" in truth)
    assert found == truth or (missing_is_fair and found is None)


def test_a_reply_that_was_cut_counts_as_far_as_it_goes():
    """A judge that stopped by itself (finish_reason "stop") without closing its object.

    Mostly one brace or quote is missing, and the instruction is whole. That it may have been
    cut in the middle is accepted here: a cut by the token limit has finish_reason "length",
    and is turned down before anything is parsed.
    """
    assert parse_flip_reply(GOOD[:-1]).instruction == "Write it"
    assert parse_flip_reply(GOOD[:-2]).instruction == "Write it"
    assert parse_flip_reply(GOOD[:-5]).instruction == "Write"
    assert parse_flip_reply('{"REASONING": "it has {braces}", "INFERRED INSTRUCTION": "Write').instruction == "Write"
    # But not where quotes inside leave open what belongs to it.
    assert parse_flip_reply('{"INFERRED INSTRUCTION": "Write "it" or "them').instruction is None


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (None, "no text"),
        ("   ", "no text"),
        ("\ufeff\n", "no text"),
        (7, "no text"),
        ("Write it", "no JSON object"),
        ("INFERRED INSTRUCTION: Write it", "no JSON object"),
        ("**INFERRED INSTRUCTION:** Write it", "no JSON object"),
        ('"Write it"', "no JSON object"),
        (json.dumps(json.dumps("Write it")), "no JSON object"),
        ("7", "no JSON object"),
        ("[1, 2]", "no readable"),
        ("{}", "no readable"),
        ('{"REASONING": "the instruction: was', "no readable"),
        ('{"REASONING": "maybe {\\"INSTRUCTION\\": \\"draft\\"}", "NOTE": 1}', "no readable"),
        ("{\"REASONING\": \"maybe {'INSTRUCTION': 'draft'}, bu", "no readable"),
        ('{"arguments": "{\\"INSTRUCTION\\": \\"Write it\\"}"}', "no readable"),
        ("{INSTRUCTION: Write it", "no readable"),
        ('{"SCORE": 3}', "no readable"),
        ("<think>" + GOOD, "inside its thinking"),
        ("<think>a</think><think>" + GOOD, "inside its thinking"),
        ("<think>{'INSTRUCTION': 'x'}", "inside its thinking"),
        ("{'INSTRUCTION': 'x'} <think>more", "inside its thinking"),
        ('{"INFERRED INSTRUCTION": null}', "NoneType"),
        ("{'INFERRED INSTRUCTION': None}", "NoneType"),
        ('{"INFERRED INSTRUCTION": ["Write it"]}', "list"),
        ('{"INFERRED INSTRUCTION": {"a": 1},}', "dict"),
        ('{"INFERRED INSTRUCTION": true,}', "bool"),
        ('{"INFERRED INSTRUCTION": null\n "REASONING": "r"}', "NoneType"),
        ('{"INFERRED INSTRUCTION": 12 tips, "REASONING": "r"}', "no readable"),
        ('{"INFERRED INSTRUCTION": 1e999999}', "float"),
        ('{"INFERRED INSTRUCTION": ' + "9" * 5_000 + "}", "no readable"),
        ('{"INFERRED INSTRUCTION": " "}', "empty"),
        ('{"INFERRED INSTRUCTION": "', "empty"),
        ("x" * (LONGEST_REPLY + 1), "characters"),
        ('{"INSTRUCTION": "x"}' * 1_000, "too many braces"),
    ],
)
def test_problems_are_named(reply, problem):
    parsed = parse_flip_reply(reply)
    assert parsed.instruction is None
    assert problem in (parsed.problem or "")


def test_reasoning_is_kept():
    assert parse_flip_reply(GOOD).reasoning == "because"
    assert parse_flip_reply('{"REASONING": "r", "INFERRED INSTRUCTION": ""}').reasoning == "r"
    assert parse_flip_reply('x {"REASONING": "r", "INFERRED INSTRUCTION": ""} y').reasoning == "r"
    assert parse_flip_reply('{"REASONING": 3, "INFERRED INSTRUCTION": "x"}').reasoning is None


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ('{"a": "x"', {"a": "x"}),
        ('{"a": "x"\n```', {"a": "x"}),
        ('{"a": "x" "b": "y"}', {"a": "x", "b": "y"}),
        ('{"a": "x", // why\n "b": "y"; }', {"a": "x", "b": "y"}),
        ("{'a': `x`, score: 8}", {"a": "x", "score": 8}),
        ('{"a": "say "hi" twice"}', {"a": 'say "hi" twice'}),
        ('{"a": "say {"a": "b"} twice"}', {"a": 'say {"a": "b"} twice'}),
        ('{"a": None}', {"a": None}),
        ('{a: Write it, slowly, "b": "y"}', {"a": "Write it, slowly", "b": "y"}),
        ("{'a': 'x', b: 'y'}", {"a": "x', b: 'y"}),
    ],
)
def test_the_examples_of_the_repairs_grammar(text, fields):
    assert repair_object(text, 0)[0] == fields


def test_repaired_fields():
    text = "noise {'a': None, b: True, \"c\": -1.5e3, 'd': [1, {'x': 2}], \"e\": \"\\ud83d\\ude00 \\beta \\n\", } tail"
    assert repair_object(text, 6) == (None, text.index("'x'"))  # a value inside is JSON or nothing
    text = text.replace("'x'", '"x"')
    fields = {"a": None, "b": True, "c": -1500.0, "d": [1, {"x": 2}], "e": "😀 \\beta \n"}
    assert repair_object(text, 6) == (fields, text.index(" tail"))
    assert repair_object("{INSTRUCTION: Write it, REASONING: short, clear}", 0)[0] == {
        "INSTRUCTION": "Write it",
        "REASONING": "short, clear",
    }
    assert repair_object('{"a": "x"' + ', "b": 1' * 40 + ",}", 0)[0] is None
    assert repair_object('{"a" "b"}', 0)[0] is None


@pytest.mark.parametrize(
    ("value", "score"),
    [("8", 8), ("1", 1), ("10", 10), ("7.5", 7.5), ('"8"', 8), ('"8/10"', 8), ('" 9 / 10 "', 9)]
    + [(bad, None) for bad in ("0", "11", "-3", "NaN", "1e999", "true", "null", "[8]", '"good"', "9" * 5000)]
    + [(bad, None) for bad in ("9" * 4000, f'"{"9" * 90}"', "[" * 600 + "8" + "]" * 600, '""')],
)
def test_scores(value, score):
    parsed = parse_score_reply(f'{{"REASONING": "r", "SCORE": {value}}}')
    assert parsed.score == score
    assert (parsed.problem is None) == (score is not None)


@pytest.mark.parametrize(
    ("reply", "index"),
    [
        ('{"REASONING": "r", "BEST_RESPONSE_INDEX": 2}', 2),
        ('{"best_response_index": "2",}', 2),
        ("{'BEST RESPONSE INDEX': 'Response 2'}", 2),
        ('{"bestIndex": 2.0}', 2),
        ('{"index": "[2]"}', 2),
        ('{"best": "response_2"}', 2),
        ('{"BEST_RESPONSE": "<response_2>"}', 2),
        ('{"BEST_RESPONSE_INDEX": 0}', 0),
        ('{"index": 1, "BEST_RESPONSE_INDEX": 0}', 0),
        ("<think>2</think>```json\n{BEST_RESPONSE_INDEX: 1}\n```", 1),
        *((f'{{"BEST_RESPONSE_INDEX": {bad}}}', None) for bad in ('3, "x": 1', "-1", '"-1"', "1.5", "true", "null")),
        *((f'{{"BEST_RESPONSE_INDEX": {bad}}}', None) for bad in ('"A"', '"0 or 1"', "[1]", "1e999", "9" * 5000, '""')),
        ("Response 2", None),
        ("2", None),
        (None, None),
    ],
)
def test_best_index(reply, index):
    parsed = parse_best_index(reply, 3)
    assert parsed.index == index
    assert (parsed.problem is None) == (index is not None)


@pytest.mark.parametrize(
    ("reply", "index"),
    [
        *((f'{{"BETTER_RESPONSE": "{a}"}}', 0) for a in ("A", "a", " A ", "[[A]]", "Response A", "**A**", "(A)", "A.")),
        *((f'{{"BETTER_RESPONSE": "{b}"}}', 1) for b in ("B", "response_b", "Assistant B", "<response_b>")),
        ("{'better response': 'B',}", 1),
        ('{"REASONING": "A is long", "winner": "B"}', 1),
        *((f'{{"BETTER_RESPONSE": "{bad}"}}', None) for bad in ("tie", "C", "A or B", "AB", "", "both", "An")),
        *((f'{{"BETTER_RESPONSE": {bad}}}', None) for bad in ("0", "1", "null", '["A"]', "true")),
        ("A", None),
        ("[[A]]", None),
        ("", None),
    ],
)
def test_better(reply, index):
    parsed = parse_better(reply)
    assert parsed.index == index
    assert (parsed.problem is None) == (index is not None)


def test_choices_keep_their_reasoning():
    assert parse_better('{"REASONING": "why", "BETTER_RESPONSE": "tie"}').reasoning == "why"
    assert (
        parse_best_index('{"REASONING": "why", "BEST_RESPONSE_INDEX": 9}', 2).problem
        == "the best response is 9, not 0..1"
    )


@pytest.mark.parametrize("answer", ["...", "<the instruction>", "<instruction>", "[...your answer...]", "…"])
def test_a_repeated_format_is_no_answer(answer):
    reply = f"Use this form: {json.dumps({'REASONING': '...', 'INFERRED INSTRUCTION': answer})}"
    assert "placeholder" in (parse_flip_reply(reply).problem or "")
    both = f'{{"INFERRED INSTRUCTION": "Write a poem"}}\nThe form was {reply}'
    assert parse_flip_reply(both).instruction == "Write a poem"


def test_the_requested_key_goes_before_a_looser_one():
    reply = '{"INFERRED INSTRUCTION": "Write a poem"}\n{"instruction": "draft"}'
    assert parse_flip_reply(reply).instruction == "Write a poem"
    assert parse_flip_reply(reply.partition("\n")[2]).instruction == "draft"
