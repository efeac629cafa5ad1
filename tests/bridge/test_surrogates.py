"""Half a surrogate pair is JSON, and no text."""

import pytest

from flashfeed.bridge.errors import InvalidField
from flashfeed.bridge.openai_messages import chat_request


def test_half_a_pair_for_a_role_is_refused():
    with pytest.raises(InvalidField, match="half of a surrogate pair"):
        chat_request([{"role": "\ud800", "content": "Up?"}])
