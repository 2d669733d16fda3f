import pytest

from flip_plugin.text.echo import echo_share

TARGET = "Write a short poem about the cold northern sea in winter"


@pytest.mark.parametrize(
    ("target", "response", "share"),
    [
        (TARGET, f"You asked me: {TARGET}.", 1.0),
        (TARGET, "You said: WRITE SHORT poem, about... cold waves", 5 / 9),
        (TARGET, "The cold northern sea! About a poem, write.", 0.0),
        (TARGET, "cold northern sea in, then short poem about cold", 7 / 9),
        ("Say hi", "ok, I say hi now", 1.0),
        ("Say hi", "say nothing, hi", 0.0),
        ("", "anything", 0.0),
        ("the", "the", 0.0),
        (TARGET, "", 0.0),
    ],
)
def test_echo(target, response, share):
    assert echo_share(target, response) == pytest.approx(share)


def test_echo_of_a_million_characters():
    assert echo_share(TARGET, "write short poem " * 60_000) == 0.0
    assert echo_share("write short poem " * 2_000, "write short poem " * 60_000) == 1.0
