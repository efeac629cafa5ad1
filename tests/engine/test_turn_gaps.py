"""What templates of real families write between turns (templates/README.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from flashfeed.engine.chat import ChatTemplate, chat_pieces
from flashfeed.engine.turn_gaps import find_turns
from flashfeed.models.errors import ConfigError

FOLDER = Path(__file__).parent / "templates"
FAMILIES = sorted(path.stem for path in FOLDER.glob("*.jinja"))
GEMMA = "google-gemma-2-2b-it"
LLAMA = "meta-llama-Llama-3.2-3B-Instruct"
MISTRAL = "mistralai-Mistral-Nemo-Instruct-2407"
QWEN = "Qwen-Qwen2.5-7B-Instruct"
QWEN3 = "Qwen-Qwen3-0.6B"
PHI = "microsoft-Phi-3.5-mini-instruct"
DEEPSEEK = "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B"


def template(family: str) -> ChatTemplate:
    return ChatTemplate((FOLDER / f"{family}.jinja").read_text(), "<bos>", "<eos>")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_cut(family: str) -> None:
    turns = find_turns(template(family))
    assert turns.gaps["user", "reply"] == chat_pieces(template(family)).tail
    assert ("assistant", "user") in turns.gaps
    assert ("assistant", "tool") in turns.gaps


def test_the_gaps_of_chatml() -> None:
    gaps = find_turns(template(QWEN)).gaps
    assert gaps["user", "assistant"] == "<|im_end|>\n<|im_start|>assistant\n"
    assert gaps["assistant", "user"] == "<|im_end|>\n<|im_start|>user\n"
    assert gaps["assistant", "tool"] == "<|im_end|>\n<|im_start|>user\n<tool_response>\n"
    assert gaps["tool", "tool"] == "\n</tool_response>\n<tool_response>\n"
    assert gaps["tool", "reply"] == ("\n</tool_response><|im_end|>\n<|im_start|>assistant\n")


def test_the_end_of_an_answer_is_the_template_s_own() -> None:
    assert find_turns(template(MISTRAL)).gaps["assistant", "user"] == "<eos>[INST]"


def test_an_answer_may_begin_otherwise_than_it_is_shown_later() -> None:
    gaps = find_turns(template(QWEN3)).gaps
    header = "<|im_end|>\n<|im_start|>assistant\n"
    assert gaps["user", "assistant"] == header
    assert gaps["user", "reply"] == f"{header}<think>\n\n</think>\n\n"


@pytest.mark.parametrize("family", [GEMMA, MISTRAL])
def test_what_a_template_refuses_has_no_gap(family: str) -> None:
    gaps = find_turns(template(family)).gaps
    assert ("user", "user") not in gaps
    assert ("assistant", "assistant") not in gaps
    assert ("assistant", "system") not in gaps


@pytest.mark.parametrize("family", [GEMMA, MISTRAL, PHI])
def test_without_a_tool_role_results_are_a_user_turn_in_tags(family: str) -> None:
    gaps = find_turns(template(family)).gaps
    assert gaps["assistant", "tool"] == gaps["assistant", "user"] + "<tool_response>\n"
    assert gaps["tool", "reply"] == "\n</tool_response>" + gaps["user", "reply"]


def test_a_header_made_of_any_role_is_no_tool_role() -> None:
    any_role = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    assert find_turns(ChatTemplate(any_role)).gaps["assistant", "tool"] == (
        "\n<user><tool_response>\n"
    )


def test_how_templates_change_texts() -> None:
    text = ' <think>why</think>\n\n "so"\n'
    plain = find_turns(template(QWEN)).rewrites
    assert plain["user"](text) == plain["assistant"](text) == plain["tool"](text) == text
    llama = find_turns(template(LLAMA)).rewrites
    assert llama["user"](text) == text.strip()
    assert llama["tool"](text) == ' <think>why</think>\\n\\n \\"so\\"\\n'
    qwen3 = find_turns(template(QWEN3)).rewrites
    assert qwen3["user"](text) == text
    assert qwen3["assistant"](text) == ' "so"\n'
    assert qwen3["assistant"]("no thinking\n") == "no thinking\n"
    deepseek = find_turns(template(DEEPSEEK)).rewrites
    assert deepseek["assistant"](text) == '\n\n "so"\n'


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ messages[-1].content }}", "can follow"),
        (
            "{% if messages | length > 1 %}{{ raise_exception('one turn only') }}{% endif %}"
            "{{ messages[0].content }}",
            "can follow",
        ),
        (
            "{% for m in messages %}[{{ loop.index }}]{{ m.content }}{% endfor %}",
            "the same wherever it stands",
        ),
    ],
)
def test_a_template_without_conversations_is_a_clear_error(source: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_turns(ChatTemplate(source))
