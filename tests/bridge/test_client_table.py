"""docs/CLIENTS.md names every client's method that the tests run."""

from __future__ import annotations

import pytest

from client_table import ClientTable, documented_rows


def test_the_table_holds_every_row_and_no_other(request: pytest.FixtureRequest) -> None:
    table = request.config.pluginmanager.get_plugin("client table")
    assert isinstance(table, ClientTable)
    missing = table.collected - documented_rows()
    assert not missing, f"docs/CLIENTS.md lacks these; write it with `make clients`: {missing}"
    if not request.config.option.keyword and request.config.args == ["tests"]:
        assert documented_rows() == table.collected
