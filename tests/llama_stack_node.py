"""A run of a JavaScript client of Llama Stack, and what its methods must give."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from client_packages import CLIENTS, node_modules

NODE_TIMEOUT_S = 300


@dataclass
class NodeRun:
    """What each method of one client gave (`values`), or how it was refused (`errors`)."""

    url: str
    model: str
    values: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, dict[str, Any]] = field(default_factory=dict)
    stderr: str = ""

    def value(self, method: str) -> Any:
        """What a method gave; fails where it was refused, or never ran."""
        assert method not in self.errors, self.errors[method]
        assert method in self.values, f"{method} never ran: {self.stderr}"
        return self.values[method]


Check = Callable[[Any, NodeRun], None]


def node_run(script: str, url: str, model: str, embedder: str) -> NodeRun:
    """Run one client's script to its end."""
    command = ["node", str(CLIENTS / script), str(node_modules()), url, model, embedder]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=NODE_TIMEOUT_S
    )
    seen = NodeRun(url, model, stderr=done.stderr)
    for line in map(json.loads, done.stdout.splitlines()):
        if "error" in line:
            seen.errors[line["method"]] = line["error"]
        else:
            seen.values[line["method"]] = line["value"]
    return seen
