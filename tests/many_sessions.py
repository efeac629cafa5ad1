"""A worker's metrics after every one of many sessions had an update with three answers: of
10 tenants by 5 feeds, which is 50 scopes; 100 partitions are behind."""

from __future__ import annotations

from flashfeed.agents.metric_names import MetricNames
from flashfeed.agents.metrics import Metrics
from flashfeed.agents.session_events import flash_events
from flashfeed.agents.session_step import Step
from flashfeed.agents.transport import Behind
from flashfeed.engine import Update
from flashfeed.models.session import Answer, FlashQuery, SessionSpec
from flashfeed.models.state import Head

TENANTS, FEEDS, QUESTIONS, PARTITIONS = 10, 5, 3, 100
CHOICES = ("up", "down")


def busy_metrics(sessions: int) -> Metrics:
    """The metrics, with all labels there can be of those sessions."""
    tenants = [f"tenant-{number}" for number in range(TENANTS)]
    feeds = [f"feed-{number}" for number in range(FEEDS)]
    questions = [f"question-{number}" for number in range(QUESTIONS)]
    queries = tuple(
        FlashQuery(f"{name}?", name=name, choices=CHOICES, id=number + 1)
        for number, name in enumerate(questions)
    )
    metrics = Metrics(MetricNames(tenants, feeds, dict.fromkeys(questions, CHOICES)))
    for number in range(sessions):
        tenant, rest = tenants[number % TENANTS], number // TENANTS
        spec = SessionSpec(type="ohlcv", tenant=tenant, flash=queries)
        answers = tuple(Answer(query.id, CHOICES[rest // FEEDS % 2], 0.7, 1.0) for query in queries)
        head = Head(
            session_id=f"session-{number}",
            spec=spec,
            feed=feeds[rest % FEEDS],
            answers=answers,
            previous={query.id: CHOICES[rest // FEEDS // 2 % 2] for query in queries},
        )
        step = Step(head, queries=queries, taken=1, received_ms=[0])
        update = Update(answers, 10, 30, 0, 1, 0.01, 0.01, 1, query_tokens=(10, 10, 10))
        metrics.sessions.stepped(step, update, flash_events(head), 0.0)
    behind = {("ticks", number): Behind(7, 1000, 2000) for number in range(PARTITIONS)}
    metrics.kafka.behind = lambda: behind
    return metrics
