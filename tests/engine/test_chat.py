"""Chat templates are cut into their own pieces and the places for texts."""

from __future__ import annotations

import pytest

from flashfeed.engine.chat import ChatPieces, ChatTemplate, chat_pieces
from flashfeed.models.errors import ConfigError

CHATML = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "<|im_start|>system\nDefault.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] | trim }}"
    "<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def pieces_of(source: str | None, bos: str = "") -> ChatPieces:
    return chat_pieces(ChatTemplate(source, bos))


def test_the_pieces_of_a_template_with_a_system_role() -> None:
    pieces = pieces_of(CHATML)
    assert pieces.head == "<|im_start|>system\n"
    assert pieces.between == "<|im_end|>\n<|im_start|>user\n"
    assert pieces.tail == "<|im_end|>\n<|im_start|>assistant\n"
    assert pieces.bare == "<|im_start|>system\nDefault.<|im_end|>\n<|im_start|>user\n"


def test_without_a_system_role_the_text_opens_the_user_turn() -> None:
    pieces = pieces_of(NO_SYSTEM, bos="<bos>")
    assert pieces.head == "<bos><start_of_turn>user\n"
    assert pieces.between == "\n\n"
    assert pieces.tail == "<end_of_turn>\n<start_of_turn>model\n"
    assert pieces.bare == pieces.head


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "instruct model"),
        ("", "instruct model"),
        ("{% for %}", "compiles"),
        ("{{ messages[7]['content'] }}{{ nothing.at.all }}", "renders"),
        ("no texts at all", "each text once"),
        ("{% for m in messages %}{{ m['content'] * 2 }}{% endfor %}", "each text once"),
    ],
)
def test_a_template_that_does_not_do_is_a_clear_error(template: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pieces_of(template)


def test_a_template_cannot_reach_out_of_its_sandbox() -> None:
    with pytest.raises(ConfigError):
        pieces_of("{{ messages.__class__.__mro__[1].__subclasses__() }}" + CHATML)


def test_a_template_that_asks_for_a_clock_is_told_the_same_date_every_time() -> None:
    asks = "{{ strftime_now('%d %b %Y') }}" + CHATML
    assert pieces_of(asks).head.startswith("unknown")
    # Where it has a way without a clock, that is taken.
    has_a_way = "{% if strftime_now is defined %}now{% else %}26 Jul 2024{% endif %}" + CHATML
    assert pieces_of(has_a_way).head.startswith("26 Jul 2024")


def test_what_hugging_face_adds_to_jinja() -> None:
    training = (
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    )
    assert ChatTemplate(training).render([{"content": "a"}, {"content": "b"}]) == "ab"
    broken_off = "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}x{% endfor %}"
    assert ChatTemplate(broken_off).render([{}, {}]) == "x"
    as_json = "{{ messages[0] | tojson }}"
    assert ChatTemplate(as_json).render([{"content": "<é>"}]) == '{"content": "<é>"}'


def test_a_template_names_the_roles_that_it_knows() -> None:
    template = ChatTemplate("{% if messages[0].role == 'tool' %}x{% endif %} system")
    assert template.names("tool")
    assert not template.names("system")
