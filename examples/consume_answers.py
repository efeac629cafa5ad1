"""Print each answer of flashfeed that changed: python examples/consume_answers.py HOST:PORT"""

import sys

from flashfeed.client import TopicEvents, Wanted

with TopicEvents(sys.argv[1], wanted=Wanted(changed=True)) as events:
    for event in events:
        answer = event.data
        print(answer.session_id, answer.name, repr(answer.value), answer.confidence)
