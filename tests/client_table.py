"""docs/CLIENTS.md: which method of which published client was run by a test, and passed.

A test says which with `@pytest.mark.client("openai 3.54.0 (PyPI)", "chat.completions.create")`.
`make clients` runs them all and writes the table.
"""

from __future__ import annotations

from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[1] / "docs" / "CLIENTS.md"
_HEAD = """# Clients

Every method of every client that the bridge serves, run unmodified against a real worker by
the tests; written by `make clients`.

| client | method | passed |
|---|---|---|
"""

Row = tuple[str, str]


def documented_rows() -> set[Row]:
    """The rows of the document as it stands."""
    lines = DOCUMENT.read_text().splitlines() if DOCUMENT.is_file() else []
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {(row[0], row[1].strip("`")) for row in cells if len(row) == 3 and row[2] == "yes"}


class ClientTable:
    """A pytest plugin: gathers the marked tests and what became of them."""

    def __init__(self, config: pytest.Config) -> None:
        self.rows: dict[str, list[Row]] = {}
        self.failed: set[str] = set()
        self.passed: set[str] = set()
        self._config = config

    @property
    def collected(self) -> set[Row]:
        """The rows of the tests of this run."""
        return {row for rows in self.rows.values() for row in rows}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            rows = [(str(m.args[0]), str(m.args[1])) for m in item.iter_markers("client")]
            if rows:
                self.rows[item.nodeid] = rows

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)
        elif report.when == "call" and report.passed:
            self.passed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        if not self._config.getoption("--write-clients"):
            return
        lines = []
        for row in sorted(self.collected):
            tests = {node for node, rows in self.rows.items() if row in rows}
            passed = not tests & self.failed and tests <= self.passed
            lines.append(f"| {row[0]} | `{row[1]}` | {'yes' if passed else 'NO'} |\n")
        DOCUMENT.parent.mkdir(exist_ok=True)
        DOCUMENT.write_text(_HEAD + "".join(lines))
