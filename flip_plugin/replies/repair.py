r"""One object that was meant to be JSON: quotes, commas, braces and escapes are forgiven, and nothing is guessed.

`repair_object` reads what a JSON decoder refuses and a person still understands. Its grammar, with examples::

    object    {  field, field, ...  end
    end       }  or a code fence, or the end of the text           {"a": "x"
    between   blanks, a comma or semicolon, a // comment, or nothing  {"a": "x" "b": "y"}
    field     key : value
    key       in quotes of any kind, or a word                     {'a': `x`, score: 8}
    value     a string, a JSON object or list, a literal, or bare text
    string    in quotes of any kind, also with quotes inside        {"a": "say "hi" twice"}
    literal   null, true, a number; None and True, too             {"a": None}
    bare      letters first; up to the line's end, a closing brace,
              or a comma with a key behind it                      {a: Write it, slowly, "b": "y"}

Behind a string or bare text, a word without quotes is a key only if it is one of `UNQUOTED_KEYS`; any other may be
part of the text.

Where a string ends is the one hard question. A quote can end it only where the text goes on as it does behind a
value: with the object's end, the text's end, or another field. So the string above does not end at ``hi``. Two rules
keep this from guessing:

- Where a string holds quotes, the braces before its end must pair up: ``"say {"a": "b"} twice"`` does not end
  behind ``b``, though a brace follows there.
- A string that the text's end cuts off counts as far as it goes; but not where it holds quotes, as any of those
  may have been its end.

Every pattern moves forward only: ``*+`` and ``++`` never give back what they took. So the cost is linear in the text,
where a general repair library is quadratic on quotes.
"""

from __future__ import annotations

import json
import re
from typing import Any

from flip_plugin.replies.keys import UNQUOTED_KEYS

MOST_FIELDS = 32
# Places where a string with quotes in it might end, before it is given up.
MOST_ENDS = 16

DECODER = json.JSONDecoder(strict=False)  # raw newlines and tabs inside strings are fine


def _pattern(text: str) -> re.Pattern[str]:
    """A pattern in which blanks stand for the reader alone, and ``.`` matches a newline, too."""
    return re.compile(text, re.VERBOSE | re.DOTALL)


QUOTES = "\"'`“”‘’"
#: Opening quote -> the quotes that may close its string.
CLOSERS = {'"': '"', "'": "'", "`": "`", "“": '“”"', "”": '“”"', "‘": "‘’'", "’": "‘’'"}

# Parts of patterns.
COMMENT = r'(?: // [^\n"]{0,200}+ \n \s*+ )?+'
GAP = rf"\s*+ {COMMENT} [\s,;]*+ {COMMENT}"
OBJECT_END = r"(?: \} | \Z | ``` )"
NAME_IN_QUOTES = rf"[^{QUOTES}\n]{{1,80}}"
QUOTED_KEY = rf"[{QUOTES}] {NAME_IN_QUOTES} [{QUOTES}] \s*+ :"
_WORD_GAP = r"[\s_-]?"
UNQUOTED_KEY = rf"(?i: {'|'.join(UNQUOTED_KEYS).replace(' ', _WORD_GAP)} ) \s*+ :"
#: What follows the quote that ends a string.
BEHIND_STRING = rf"""
    \s*+ {COMMENT}
    (?: [,;]? \s*+ {COMMENT} (?: {OBJECT_END} | {QUOTED_KEY} )
      | [,;] \s*+ {UNQUOTED_KEY}
    )
"""

_KEY = _pattern(rf"""
    {GAP}
    (?: [{QUOTES}] (?P<quoted> {NAME_IN_QUOTES} ) [{QUOTES}]
      | (?P<bare> [A-Za-z_] [\w -]{{0,80}} )
    )
    \s*+ : \s*+
""")
_END = _pattern(rf"{GAP} {OBJECT_END}")
_LITERAL = _pattern(r"""
    (null | None | [tT]rue | [fF]alse | NaN | -? \d [\d.eE+-]{0,40} )
    (?= [^\S\n]*+ [,;}\n] )
""")
# What begins with a digit is no bare text but a number gone wrong.
_BARE_TEXT = _pattern(rf"""
    (?= [^\W\d_] )
    (?: [^{{}}\[\]"\n,]++
      | , (?! \s*+ (?: {QUOTED_KEY} | {UNQUOTED_KEY} ) )
    )++
    (?= [,}}\n] )
""")
#: Closing quotes -> a string's text up to the next quote that may end it, or to the end of all text.
_UP_TO_CLOSER = {
    closers: _pattern(rf"""
        (?P<text> (?: [^{closers}\\]++ | \\. | [{closers}] (?! {BEHIND_STRING} ) )*+ )
        (?P<closer> [{closers}] )?
    """)
    for closers in set(CLOSERS.values())
}
#: Closing quotes -> a text that holds one of them, not behind a backslash.
_UP_TO_QUOTE = {closers: _pattern(rf"(?: [^{closers}\\]++ | \\. )*+ [{closers}]") for closers in set(CLOSERS.values())}
_ESCAPE = _pattern(r"\\ (?: u ([0-9a-fA-F]{4}) | (.) )")

_WORDS = {"null": None, "None": None, "true": True, "True": True, "false": False, "False": False}
# Not \b and \f: in text whose escapes are wrong they begin \beta and \frac.
_PLAIN_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\n": ""} | {char: char for char in "\\/" + QUOTES}


class _Unreadable(Exception):
    """The text cannot be read without guessing; `at` is how far was looked."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.at = at


def repair_object(text: str, start: int) -> tuple[dict[str, Any] | None, int]:
    """The fields of the object that opens at ``text[start] == "{"``, and how far was looked.

    None instead of fields where the text cannot be read without guessing. A string
    that the end of the text cuts off counts as far as it goes.

    >>> repair_object('{"Instruction": "Say "hi" to us", }', 0)[0]
    {'Instruction': 'Say "hi" to us'}
    >>> repair_object("{'REASONING': 'it's short', instruction: 'cut o", 0)[0]
    {'REASONING': "it's short", 'instruction': 'cut o'}
    >>> repair_object('{"Instruction": "Say "hi" to', 0)[0] is None
    True
    """
    fields: dict[str, Any] = {}
    at = start + 1
    try:
        for _ in range(MOST_FIELDS):
            key = _KEY.match(text, at)
            if key is None:
                break
            fields[key["quoted"] or key["bare"]], at = _read_value(text, key.end())
            if end := _END.match(text, at):
                return fields, end.end()
    except _Unreadable as unreadable:
        at = unreadable.at
    return None, at


def _read_value(text: str, at: int) -> tuple[Any, int]:
    """The value that begins at `at`, and its end. Raises `_Unreadable`."""
    first = text[at : at + 1]
    if first in CLOSERS:
        return _read_string(text, at + 1, CLOSERS[first])
    if first in ("{", "["):
        return _read_json(text, at)
    if literal := _LITERAL.match(text, at):
        return _literal_value(literal[1]), literal.end()
    if bare := _BARE_TEXT.match(text, at):
        return bare[0].strip(), bare.end()
    raise _Unreadable(at)


def _read_json(text: str, at: int) -> tuple[Any, int]:
    """An object or a list inside the object: these are not repaired. Raises `_Unreadable`."""
    try:
        return DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise _Unreadable(error.pos) from None
    except (ValueError, RecursionError):  # a number of thousands of digits; nesting
        raise _Unreadable(len(text)) from None


def _literal_value(word: str) -> Any:
    """What a word stands for; one that looks like a number and is none stays text."""
    if word in _WORDS:
        return _WORDS[word]
    try:
        return DECODER.decode(word)
    except ValueError:
        return word


def _read_string(text: str, start: int, closers: str) -> tuple[str, int]:
    """A string from behind its opening quote, and its end; see the module for where that is. Raises `_Unreadable`."""
    at, open_braces, has_quotes = start, 0, False
    for _ in range(MOST_ENDS):
        match = _UP_TO_CLOSER[closers].match(text, at)
        assert match is not None  # it may match nothing, but it matches
        piece, at = match["text"], match.end()
        open_braces += piece.count("{") - piece.count("}")
        has_quotes = has_quotes or _UP_TO_QUOTE[closers].match(piece) is not None
        if match["closer"] is None:
            content = _cut_string(text[start:at], open_braces, has_quotes)
            if content is None:
                break
            return content, at
        if not has_quotes or open_braces == 0:
            return _unescape(text[start : at - 1]), at
    raise _Unreadable(at)


def _cut_string(content: str, open_braces: int, has_quotes: bool) -> str | None:
    """The text of a string that nothing closes; None where it is unclear where it ends."""
    content = content.rstrip()
    if open_braces == -1 and content.endswith("}"):  # the object's own brace: only the quote before it is missing
        content, open_braces = content[:-1], 0
    return None if has_quotes or open_braces < 0 else _unescape(content)


def _unescape(content: str) -> str:
    """JSON's escapes and escaped quotes resolved; a backslash before anything else is text."""
    if "\\" not in content:
        return content

    def resolved(match: re.Match[str]) -> str:
        code, char = match.groups()
        return chr(int(code, 16)) if code else _PLAIN_ESCAPES.get(char, match.group())

    # There and back makes one character of a pair of surrogates.
    return _ESCAPE.sub(resolved, content).encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
