"""The same examples in the same order give the same head, whoever learns them (invariant 8)."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from flashfeed.agents import head_learning
from flashfeed.agents.head_learning import HeadLearning, read_reservoirs, reservoir_key
from flashfeed.agents.learned_heads import LearnedHeads
from flashfeed.heads.learner import EXAMPLES_MAX
from flashfeed.models.errors import RequestError
from flashfeed.models.learning import (
    Example,
    ExampleRecord,
    Features,
    HeadName,
    Prediction,
    Subject,
    decode_head,
)

NAME = HeadName("acme", Subject("m", "s", "Up?", ("no", "yes")), "up", "iot")


def records(count: int, seed: int = 3) -> list[ExampleRecord]:
    """Examples of three sessions, whose hidden states know the label."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        label = int(random.integers(2))
        hidden = random.normal(0.5 * (2 * label - 1), 1.0, 12).astype("<f2").tobytes()
        share = float(random.uniform(0.1, 0.9))
        parts = {
            "base_rate": (0.5, 0.5),
            "persistence": (0.5, 0.5),
            "prior": (share, 1 - share),
            "mixed": (0.5, 0.5),
        }
        prediction = Prediction("prior", number, parts, (0, 1))
        features = Features((float(np.log(share)), float(np.log(1 - share))), hidden)
        example = Example(f"s{number % 3}", features, label, prediction)
        choice = NAME.subject.choices[label]
        found.append(ExampleRecord(f"e{number}", NAME, number, choice, "rule", None, example))
    return found


def test_who_takes_over_at_any_example_ends_with_the_same_head() -> None:
    examples = records(120)
    whole = HeadLearning.new(NAME)
    for one in examples:
        whole.learn(one)
    for taken_over in (1, 15, 17, 60, 119):
        learning, topic = HeadLearning.new(NAME), {}
        for place, one in enumerate(examples):
            if place == taken_over:  # what the dead one wrote beyond its last head is there too
                message = learning.message(0)
                for more in examples[place : place + 20]:
                    learnt = learning.learn(more)
                    topic[reservoir_key(NAME.key, learnt.number)] = msgspec.json.encode(learnt)
                kept, corrupt = read_reservoirs(topic.items())
                assert not corrupt
                learning = HeadLearning.restored(decode_head(message), kept[NAME.key])
                assert learning.whole
            assert not learning.knows(one.id)
            learnt = learning.learn(one)
            topic[reservoir_key(NAME.key, learnt.number)] = msgspec.json.encode(learnt)
        assert learning.message(0) == whole.message(0)
        assert learning.card.scores() == whole.card.scores()
        assert learning.knows("e119")


def test_a_head_whose_scores_an_older_version_wrote_goes_on() -> None:
    """It lacks the sums that the skill's interval is made of; the reservoir has the labels."""
    learning, topic = HeadLearning.new(NAME), {}
    for one in records(60):
        learnt = learning.learn(one)
        topic[reservoir_key(NAME.key, learnt.number)] = msgspec.json.encode(learnt)
    record = decode_head(learning.message(0))
    known = ("brier", "base_rate", "persistence", "log_loss", "right")
    older = msgspec.structs.replace(record, sums={name: record.sums[name] for name in known})
    kept = read_reservoirs(topic.items())[0][NAME.key]
    assert HeadLearning.restored(older, kept).card.scores() == learning.card.scores()
    bare = HeadLearning.restored(older, {})  # the reservoir is gone
    assert bare.scores.labels == 60
    for one in records(90)[60:]:
        bare.learn(one)
    scores = bare.card.scores()
    assert scores.skill_low is not None
    assert scores.skill_base_rate is not None
    assert scores.skill_low < scores.skill_base_rate


def test_a_full_reservoir_overwrites_nothing_that_the_published_head_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from flashfeed.heads import learner

    for module in (learner, head_learning):
        monkeypatch.setattr(module, "EXAMPLES_MAX", 40)
    monkeypatch.setattr(head_learning, "RESERVOIR_SLOTS", 40 + 16)
    examples = records(300)
    topic: dict[bytes, bytes] = {}
    learning = HeadLearning.new(NAME)
    for number, one in enumerate(examples):
        if number % 100 == 90:
            message = learning.message(0)
            for more in examples[number : number + 16]:  # a chunk that is not published
                learnt = learning.learn(more)
                topic[reservoir_key(NAME.key, learnt.number)] = msgspec.json.encode(learnt)
            learning = HeadLearning.restored(
                decode_head(message), read_reservoirs(topic.items())[0][NAME.key]
            )
            newest = [example.features.logs for example in learning.head.examples][-40:]
            assert newest == [one.example.features.logs for one in examples[number - 40 : number]]
        learnt = learning.learn(one)
        topic[reservoir_key(NAME.key, learnt.number)] = msgspec.json.encode(learnt)
    assert len(topic) == 56


def test_scores_are_at_most_a_hundredth_of_the_examples_old() -> None:
    learning, scored_at = HeadLearning.new(NAME), []
    for number, one in enumerate(records(410), 1):
        learning.learn(one)
        if learning.score_is_due:
            learning.scored()
            scored_at.append(number)
        assert number - learning.scores.labels < max(1, number / 100)
    assert scored_at[:200] == [*range(1, 200), 201]
    assert not learning.score_is_due


def test_an_example_of_another_kind_is_refused_and_changes_nothing() -> None:
    learning = HeadLearning.new(NAME)
    good = records(1)[0]
    learning.learn(good)
    before = learning.message(0)
    example = good.example
    for wrong in (
        msgspec.structs.replace(example, label=2),
        msgspec.structs.replace(example, features=Features((0.1, 0.2, 0.3))),
        msgspec.structs.replace(example, features=Features((0.1, 0.2), bytes(6))),
        msgspec.structs.replace(
            example,
            features=Features(example.features.logs, np.full(12, np.nan, "<f2").tobytes()),
        ),
        msgspec.structs.replace(
            example,
            prediction=Prediction("prior", 1, example.prediction.parts | {"prior": (0.0, 1.0)}),
        ),
        msgspec.structs.replace(example, prediction=Prediction("mixed", 1, {"mixed": (0.5, 0.5)})),
    ):
        with pytest.raises(RequestError):
            learning.learn(msgspec.structs.replace(good, id="x", example=wrong))
    assert learning.message(0) == before


def test_every_worker_answers_with_the_newest_head() -> None:
    learning, heads = HeadLearning.new(NAME), LearnedHeads()
    assert heads.find(NAME).version == 0
    messages = []
    for one in records(3):
        learning.learn(one)
        learning.offset += 1
        messages.append(learning.message(0))
    for message in (messages[0], messages[2], messages[1]):  # the last is of a zombie
        heads.take(NAME.key.encode(), message)
    assert heads.find(NAME).version == 3
    assert heads.find(NAME) is heads.find(NAME)
    heads.take(b"acme/x/y", b"no head")
    assert len(heads) == 1
    heads.take(NAME.key.encode(), None)
    assert heads.find(NAME).version == 0


def test_examples_max_is_what_the_reservoir_is_made_for() -> None:
    assert EXAMPLES_MAX + head_learning.CHUNK_EXAMPLES_MAX == head_learning.RESERVOIR_SLOTS


def test_a_head_of_too_many_sessions_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    learning = HeadLearning.new(NAME)
    for one in records(40):
        session = f"session {one.data_version:03}"
        example = msgspec.structs.replace(one.example, session=session)
        learning.learn(msgspec.structs.replace(one, example=example))
    size = len(learning.message(0))
    monkeypatch.setattr(head_learning, "MESSAGE_BYTES_MAX", size - 100)
    back = HeadLearning.restored(decode_head(learning.message(0)), {})
    assert list(back.head.last) == [f"session {number:03}" for number in range(21, 40)]
    assert back.head.version == 40


def test_a_probe_that_has_no_room_is_not_learnt() -> None:
    learning = HeadLearning.new(NAME)
    one = records(1)[0]
    features = Features(one.example.features.logs, bytes(2 * 25_001))
    large = msgspec.structs.replace(one.example, features=features)
    learning.learn(msgspec.structs.replace(one, example=large))
    assert learning.head.examples[0].features.hidden == b""
