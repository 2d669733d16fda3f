from hypothesis import given, settings
from hypothesis import strategies as st

from flip_plugin.text.shorten import estimate_tokens, shorten


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=400), st.integers(-5, 200))
def test_shorten_keeps_to_its_room(text, room):
    short = shorten(text, room)
    if estimate_tokens(text) <= room:
        assert short == text
    else:
        assert short is None or (estimate_tokens(short) <= room and "left out" in short)
