"""How much memory there is for KV caches."""

from __future__ import annotations

from pathlib import Path


def free_memory_bytes() -> int:
    """What the machine could still give to this process, in bytes (Linux's MemAvailable)."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 4 << 30
