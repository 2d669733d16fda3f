import pytest

from flip_plugin.text.echo import echo_share, penalty, strip_echo

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


def test_a_restatement_nested_in_itself_is_stripped():
    asked = "Write a haiku about autumn leaves in Kyoto"
    nested = "write haiku about write haiku about autumn autumn leaves leaves in Kyoto in Kyoto"
    assert echo_share(asked, strip_echo(asked, nested)) == 0.0
    assert strip_echo(asked, nested) == "leaves in Kyoto in Kyoto"


def test_echo_without_spaces():
    target = "请写一首关于秋天落叶的俳句"
    said = f"你说：{target}。好的，红叶"
    assert (echo_share(target, said), penalty(target, 1.0)) == (1.0, 0.0)
    assert strip_echo(target, said) == "你说：。好的，红叶"
    assert echo_share(target, "秋天的落叶很美") == 0.0
    assert penalty("写一首诗", 1.0) == 1.0  # two words
