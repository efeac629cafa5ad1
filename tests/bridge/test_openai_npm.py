"""OpenAI's published npm client against a running worker: every method, in one run of Node
(tests/clients/openai.mjs); its answers are those that the Python client gets."""

import json
import shutil
import subprocess

import pytest

from client_packages import CLIENTS, node_modules
from openai_worker import EMBEDDER, embedding_model, live_session, openai_client

pytestmark = [
    pytest.mark.model,
    pytest.mark.broker,
    pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed"),
]

NPM = "openai 6.49.0 (npm)"
ASKED = "Name the capital of France."
TEXT = "The capital of France is"
TREND = "Is the trend up or down?"
RUN_S_MAX = 300


@pytest.fixture(scope="module")
def client(worker):
    with openai_client(worker.url) as client:
        yield client


@pytest.fixture(scope="module")
def session(worker):
    with live_session(worker.url) as session:
        yield session


@pytest.fixture(scope="module")
def answers(worker, session):
    """What each method gave, by its name."""
    modules = node_modules()
    version = json.loads((modules / "openai" / "package.json").read_text())["version"]
    assert version in NPM
    model = embedding_model(worker.log.parent).name
    done = subprocess.run(
        ("node", str(CLIENTS / "openai.mjs"), str(modules), worker.url, session.id, model),
        check=False,
        capture_output=True,
        text=True,
        timeout=RUN_S_MAX,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["method"]: line for line in lines}


@pytest.fixture(scope="module")
def chat(client):
    """The answer that most of the methods ask for."""
    answer = client.chat.completions.create(
        model="", messages=[{"role": "user", "content": ASKED}], temperature=0, max_tokens=8
    )
    return {"text": answer.choices[0].message.content, "usage": answer.usage}


def is_chat(value, seen):
    assert value == seen["chat"]["text"]


def is_streamed_chat(value, seen):
    usage = seen["chat"]["usage"]
    assert value == {"text": seen["chat"]["text"], "usage": usage.completion_tokens}


def is_of_the_session(value, seen):
    assert value["text"] == seen["session"].generate(TREND, max_tokens=8)["text"]
    assert value["tokens"] > seen["session"].state()["n_tokens"]


def is_weather_call(value, seen):
    assert value["name"] == "get_weather"
    assert value["arguments"]["city"] in ("Paris", "Rome")


def is_asked_city(value, seen):
    assert value in (["Paris"], ["Rome"])


def is_capital(value, seen):
    assert list(value) == ["city"]
    assert value["city"]


def is_text_gone_on(value, seen):
    answer = seen["client"].completions.create(model="", prompt=TEXT, temperature=0, max_tokens=8)
    assert value == answer.choices[0].text


def is_streamed_response(value, seen):
    cut = seen["chat"]["usage"].completion_tokens == 8
    last = "response.incomplete" if cut else "response.completed"
    assert value == {"text": seen["chat"]["text"], "last": last}


def is_second_turn(value, seen):
    answer = seen["client"].chat.completions.create(
        model="",
        messages=[
            {"role": "user", "content": "My name is Ada."},
            {"role": "assistant", "content": value["first"]},
            {"role": "user", "content": ASKED},
        ],
        temperature=0,
        max_tokens=8,
    )
    assert value["second"] == answer.choices[0].message.content


def is_held(value, seen):
    assert value == {"said": seen["chat"]["text"], "held": [ASKED, seen["chat"]["text"]]}


def is_counted(value, seen):
    assert value["counted"] == value["read"] == seen["chat"]["usage"].prompt_tokens


def is_embedded(value, seen):
    wanted = seen["client"].embeddings.create(model=EMBEDDER, input=["up", "down"])
    for vector, one in zip(value, wanted.data, strict=True):
        assert vector == pytest.approx(one.embedding, abs=1e-6)


def is_the_model(value, seen):
    assert value == seen["client"].models.list().data[0].id


def is_value(wanted):
    def check(value, seen):
        assert value == wanted

    return check


METHODS = {
    "chat.completions.create": is_chat,
    "chat.completions.create (stream)": is_streamed_chat,
    "chat.completions.create (session_id)": is_of_the_session,
    "chat.completions.create (tools)": is_weather_call,
    "chat.completions.stream": is_chat,
    "chat.completions.parse": is_capital,
    "chat.completions.runTools": is_asked_city,
    "chat.completions.retrieve": is_chat,
    "chat.completions.update": is_value({"run": "npm"}),
    "chat.completions.list": lambda value, seen: is_chat(value[0], seen),
    "chat.completions.messages.list": is_value([ASKED]),
    "chat.completions.delete": is_value({"deleted": True, "status": 404}),
    "completions.create": is_text_gone_on,
    "completions.create (stream)": is_text_gone_on,
    "embeddings.create": is_embedded,
    "models.list": lambda value, seen: is_the_model(value[0], seen),
    "models.retrieve": is_the_model,
    "responses.create": is_chat,
    "responses.create (stream)": is_streamed_response,
    "responses.stream": is_chat,
    "responses.create (previous_response_id)": is_second_turn,
    "responses.create (tools)": is_weather_call,
    "responses.parse": is_capital,
    "responses.retrieve": is_chat,
    "responses.inputItems.list": is_value([ASKED]),
    "responses.inputTokens.count": is_counted,
    "responses.cancel": is_value(400),
    "responses.delete": is_value(404),
    "responses.create (conversation)": is_held,
    "conversations.create": is_value([ASKED]),
    "conversations.retrieve": is_value({"a": "1"}),
    "conversations.update": is_value({"a": "2"}),
    "conversations.delete": is_value(404),
    "conversations.items.create": is_value([ASKED]),
    "conversations.items.list": is_value(2),
    "conversations.items.retrieve": is_value(ASKED),
    "conversations.items.delete": is_value(0),
}


@pytest.mark.parametrize(
    ("method", "check"),
    [
        pytest.param(method, check, id=method, marks=pytest.mark.client(NPM, method))
        for method, check in METHODS.items()
    ],
)
def test_the_method_gives_the_same_answer(method, check, answers, client, session, chat):
    line = answers[method]
    assert "error" not in line, line["error"]
    check(line["value"], {"client": client, "session": session, "chat": chat})


def test_every_method_that_node_ran_is_checked(answers):
    assert set(answers) == set(METHODS)
