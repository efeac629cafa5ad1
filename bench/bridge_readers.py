"""Subscribers of one session in a process of their own: python bench/bridge_readers.py PORT
SESSION NUMBER. Prints "ready", and at each line on stdin the milliseconds that each event
needed since its answer, all of them since the line before, as JSON."""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys
import time

VALUE = re.compile(rb'"value":"(\d{15,})"')


def subscribe(port: int, session: str) -> socket.socket:
    reader = socket.create_connection(("127.0.0.1", port), timeout=30)
    path = f"/flashfeed/v1/sessions/{session}/events"
    reader.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
    return reader


def main() -> None:
    port, session, number = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    selector = selectors.DefaultSelector()
    for reader in [subscribe(port, session) for _ in range(number)]:
        assert b"200 OK" in reader.recv(200)
        reader.setblocking(False)
        selector.register(reader, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    print("ready", flush=True)
    latencies: list[float] = []
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                if not sys.stdin.readline():
                    return
                print(json.dumps(latencies), flush=True)
                latencies.clear()
                continue
            assert isinstance(key.fileobj, socket.socket)
            data = key.fileobj.recv(65536)
            now = time.time_ns()
            latencies += [(now - int(sent)) / 1e6 for sent in VALUE.findall(data)]


if __name__ == "__main__":
    main()
