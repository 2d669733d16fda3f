"""Objects that were meant to be JSON, read in one pass: quotes, commas, braces and escapes forgiven.

`mend` reads the fields of one object whose text a JSON decoder refuses: raw quotes inside a
string, single or curly quotes, Python's literals, trailing or missing commas, stray
backslashes, bare keys and values, an end that is cut off. Where it cannot tell where a
string ends, it gives up: a wrong guess would be scored. Every pattern here moves forward
only, so the cost is linear in the text; a general repair library is quadratic on quotes.
"""

from __future__ import annotations

import json
import re
from typing import Any

MOST_FIELDS = 32
# Places where a string with quotes in it might end, before it is given up.
MOST_ENDS = 16

DECODER = json.JSONDecoder(strict=False)  # raw newlines and tabs inside strings are fine

_QUOTES = "\"'`“”‘’"
_QUOTED_KEY = rf"[{_QUOTES}][^{_QUOTES}\n]{{1,80}}[{_QUOTES}]\s*+:"
# Without quotes, only what these judges are asked for counts as a key behind a comma.
_BARE_KEY = (
    r"(?i:reasoning|(?:inferred[\s_-]?)?instruction|score|rating|best[\s_-]?response[\s_-]?index"
    r"|better[\s_-]?response)\s*+:"
)
_COMMENT = r"(?://[^\n\"]{0,200}+\n\s*+)?+"
# What follows the quote that ends a string: the object's end, the text's end, or another field.
_AFTER = rf"(?=\s*+{_COMMENT}(?:[,;]?\s*+{_COMMENT}(?:\}}|\Z|```|{_QUOTED_KEY})|[,;]\s*+{_BARE_KEY}))"
_CLOSERS = {'"': '"', "'": "'", "`": "`", "“": '“”"', "”": '“”"', "‘": "‘’'", "’": "‘’'"}
# A string from where it stands up to a quote that may end it, or to the end of the text.
_TO_END = {
    closers: re.compile(rf"(?:[^{closers}\\]++|\\.|[{closers}](?!{_AFTER}))*+([{closers}])?", re.DOTALL)
    for closers in set(_CLOSERS.values())
}
# A quote inside what that found.
_INNER = {
    closers: re.compile(rf"(?:[^{closers}\\]++|\\.)*+[{closers}]", re.DOTALL) for closers in set(_CLOSERS.values())
}
_GAP = rf"\s*+{_COMMENT}[\s,;]*+{_COMMENT}"
_KEY = re.compile(rf"{_GAP}(?:[{_QUOTES}]([^{_QUOTES}\n]{{1,80}})[{_QUOTES}]|([A-Za-z_][\w -]{{0,80}}))\s*+:\s*+")
_OVER = re.compile(rf"{_GAP}(?:\}}|\Z|```)")
_LITERAL = re.compile(r"(null|None|[tT]rue|[fF]alse|NaN|-?\d[\d.eE+-]{0,40})(?=[^\S\n]*+[,;}\n])")
# Text without quotes begins with a letter; what begins with a digit is a number gone wrong.
_BARE = re.compile(rf"((?=[^\W\d_])(?:[^{{}}\[\]\"\n,]++|,(?!\s*+(?:{_QUOTED_KEY}|{_BARE_KEY})))++)(?=[,}}\n])")
_WORDS = {"null": None, "None": None, "true": True, "True": True, "false": False, "False": False}
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
# Not \b and \f: in text whose escapes are wrong they begin \beta and \frac.
_PLAIN_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\n": ""} | {c: c for c in "\\/" + _QUOTES}


def mend(text: str, start: int) -> tuple[dict[str, Any] | None, int]:
    """The fields of the object that opens at ``text[start] == "{"``, and how far was looked.

    None instead of fields where the text cannot be read without guessing. A string
    that the end of the text cuts off counts as far as it goes.

    >>> mend('{"Instruction": "Say "hi" to us", }', 0)[0]
    {'Instruction': 'Say "hi" to us'}
    >>> mend("{'REASONING': 'it's short', instruction: 'cut o", 0)[0]
    {'REASONING': "it's short", 'instruction': 'cut o'}
    >>> mend('{"Instruction": "Say "hi" to', 0)[0] is None
    True
    """
    fields: dict[str, Any] = {}
    at = start + 1
    for _ in range(MOST_FIELDS):
        key = _KEY.match(text, at)
        if key is None:
            return None, at
        name, at = key.group(1) or key.group(2), key.end()
        found, value, at = _value(text, at)
        if not found:
            return None, at
        fields[name] = value
        over = _OVER.match(text, at)
        if over is not None:
            return fields, over.end()
    return None, at


def _value(text: str, at: int) -> tuple[bool, Any, int]:
    """(readable, value, how far was looked) of the value that begins at `at`."""
    first = text[at : at + 1]
    if first in _CLOSERS:
        return _string(text, at + 1, _CLOSERS[first])
    if first in ("{", "["):
        try:
            value, end = DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            return False, None, error.pos
        except (ValueError, RecursionError):  # a number of thousands of digits; nesting
            return False, None, len(text)
        return True, value, end
    if literal := _LITERAL.match(text, at):
        return True, _literal(literal.group(1)), literal.end()
    if bare := _BARE.match(text, at):
        return True, bare.group(1).strip(), bare.end()
    return False, None, at


def _literal(word: str) -> Any:
    if word in _WORDS:
        return _WORDS[word]
    try:
        return DECODER.decode(word)
    except ValueError:
        return word


def _string(text: str, start: int, closers: str) -> tuple[bool, Any, int]:
    """A string from behind its opening quote.

    Quotes inside are kept. With quotes inside, the end is the first at which the braces
    before it pair up: ``"say {"a": "b"} twice"`` does not end behind b.
    """
    at, opened, has_quotes = start, 0, False
    for _ in range(MOST_ENDS):
        match = _TO_END[closers].match(text, at)
        assert match is not None  # it may match nothing, but it matches
        piece = match.group().removesuffix(match.group(1) or "")
        at = match.end()
        opened += piece.count("{") - piece.count("}")
        has_quotes = has_quotes or _INNER[closers].match(piece) is not None
        if match.group(1) is None:
            content = text[start:at].rstrip()
            if opened == -1 and content.endswith("}"):  # only the quote is missing
                content, opened = content[:-1], 0
            return (False, None, at) if has_quotes or opened < 0 else (True, _unescaped(content), at)
        if not has_quotes or opened == 0:
            return True, _unescaped(text[start : at - 1]), at
        has_quotes = True
    return False, None, at


def _unescaped(content: str) -> str:
    """JSON's escapes and escaped quotes resolved; a backslash before anything else is text."""
    if "\\" not in content:
        return content

    def resolved(match: re.Match[str]) -> str:
        code, plain = match.groups()
        return chr(int(code, 16)) if code else _PLAIN_ESCAPES.get(plain, match.group())

    # There and back makes one character of a pair of surrogates.
    return _ESCAPE.sub(resolved, content).encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
