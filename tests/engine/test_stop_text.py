"""Stop strings wherever tokens cut them, and whole characters only."""

from __future__ import annotations

import pytest

from flashfeed.engine.stop_text import StopText


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_stop_strings_are_found_wherever_tokens_cut_them(size: int) -> None:
    raw = "grüße ##END# ##END## not this".encode()
    text = StopText(("##END##", "never"))
    out, stop = "", ""
    for at in range(0, len(raw), size):
        piece, stop = text.add(raw[at : at + size])
        out += piece
        if stop:
            break
    assert stop == "##END##"
    assert out == "grüße ##END# "


def test_text_held_back_comes_at_the_end_and_half_a_character_never() -> None:
    text = StopText(("stop",))
    assert text.add(b"now sto") == ("now ", "")
    assert text.add("ü".encode()[:1]) == ("", "")
    assert text.rest() == "sto"


def test_the_first_stop_string_in_the_text_is_the_one() -> None:
    assert StopText(("late", "early", "ear")).add(b"an early and a late one") == ("an ", "early")
