"""Keys and logins stay out of what is passed on."""

import doctest
from types import MappingProxyType

from flip_plugin.files import redaction
from flip_plugin.files.redaction import without_keys, without_logins, without_secrets


def test_logins_go_from_nested_data_and_from_text():
    value = {"bases": ["http://me:pw@a/v1", ("https://k@b",)], "other": MappingProxyType({"n": 1, "none": None})}
    hidden = {"bases": ["http://(hidden)@a/v1", ["https://(hidden)@b"]], "other": {"n": 1, "none": None}}
    assert without_logins(value) == hidden
    assert without_logins("no reply from http://me:p@ss@host/v1, mail a@b") == (
        "no reply from http://(hidden)@host/v1, mail a@b"
    )


def test_values_are_hidden_by_their_names():
    value = {"OPENAI_API_KEY": "x", "auth_token": ["y"], "max_tokens": 5, "api_key": None, "url": "http://u:p@ss@h"}
    hidden = {"OPENAI_API_KEY": "(hidden)", "auth_token": "(hidden)", "max_tokens": 5, "api_key": None}
    assert without_secrets(value) == hidden | {"url": "http://(hidden)@h"}


def test_keys_are_cut_from_a_message(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "from-the-environment")
    text = without_keys(
        "key sk-1234 and sk-1234-long, from-the-environment, abc", ["sk-1234", "sk-1234-long", "abc", None]
    )
    assert text == "key [key] and [key], [key], abc"


def test_examples_are_right():
    assert doctest.testmod(redaction).failed == 0
