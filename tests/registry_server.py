"""A schema registry over HTTP: as much of Confluent's and Apicurio's REST APIs as clients
use, kept in memory. Confluent's own client registers and reads here in the tests."""

from __future__ import annotations

import hashlib
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

TEXT_OF_PROTO = 'syntax = "proto3"; // the text of the file'


class RegistryServer:
    """Listens on a port of its own until `stop`. `requests` are the paths that were asked
    for; `broken` makes every answer an error page of that status, as a proxy gives it;
    `auth` is the Authorization header that it wants."""

    def __init__(self, port: int = 0) -> None:
        self.schemas: list[dict[str, Any]] = []
        self.subjects: dict[str, list[int]] = {}
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.broken = 0
        self.auth = ""
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                self._answer(orjson.loads(self.rfile.read(length)))

            def _answer(self, body: Any) -> None:
                server.requests.append(self.path)
                if server.broken:
                    status, data, headers = server.broken, b"<html>no</html>", {}
                elif server.auth and self.headers.get("authorization") != server.auth:
                    status, data, headers = 401, b'{"error_code":401,"message":"no"}', {}
                else:
                    status, data, headers = server.answer(self.path, body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the port."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def register(self, subject: str, schema: dict[str, Any]) -> int:
        """A schema's id, under a subject."""
        ids = self.subjects.setdefault(subject, [])
        kept = {
            key: schema[key] for key in ("schema", "schemaType", "references") if schema.get(key)
        }
        if kept.get("schemaType") == "AVRO":
            del kept["schemaType"]  # as Confluent's answers leave it out
        if kept not in self.schemas:
            self.schemas.append(kept)
        number = self.schemas.index(kept) + 1
        if number not in ids:
            ids.append(number)
        return number

    def artifact(self, name: str, number: int, kind: str, text: str, *references: str) -> None:
        """An Apicurio artifact with that content and global id, and what it refers to."""
        self.artifacts[name] = {"id": number, "kind": kind, "text": text, "refs": references}

    def answer(self, path: str, body: Any) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers for a path."""
        split = urlsplit(path)
        parts = [unquote(part) for part in split.path.strip("/").split("/")]
        query = {key: values[0] for key, values in parse_qs(split.query).items()}
        match parts:
            case ["subjects", subject, "versions"] if body is not None:
                number = self.register(subject, body)
                return _json({"id": number, "guid": _guid(number), "version": 1})
            case ["subjects", subject] if body is not None:
                number = self.register(subject, body)
                version = self.subjects[subject].index(number) + 1
                return _json({**self._shown(number, query), "id": number, "guid": _guid(number),
                              "subject": subject, "version": version})  # fmt: skip
            case ["schemas", "ids", number] if 0 < int(number) <= len(self.schemas):
                return _json(self._shown(int(number), query))
            case ["schemas", "guids", guid]:
                for number in range(1, len(self.schemas) + 1):
                    if _guid(number) == guid:
                        return _json(self._shown(number, query))
            case ["subjects", subject, "versions", version] if subject in self.subjects:
                ids = self.subjects[subject]
                number = ids[-1 if version == "latest" else int(version) - 1]
                return _json({**self._shown(number, query), "id": number, "subject": subject,
                              "version": ids.index(number) + 1})  # fmt: skip
            case ["apis", "registry", "v2" | "v3" as version, *rest]:
                return self._apicurio(version, rest)
        return _json({"error_code": 40403, "message": "Schema not found"}, 404)

    def _shown(self, number: int, query: dict[str, str]) -> dict[str, Any]:
        kept = self.schemas[number - 1]
        if kept.get("schemaType") == "PROTOBUF" and query.get("format") != "serialized":
            return {**kept, "schema": TEXT_OF_PROTO}
        return kept

    def _apicurio(self, version: str, rest: list[str]) -> tuple[int, bytes, dict[str, str]]:
        found: dict[str, Any] | None = None
        match rest:
            case ["ids", "contentIds" | "globalIds", number, *more]:
                found = next(
                    (one for one in self.artifacts.values() if str(one["id"]) == number), None
                )
            case ["groups", "default", "artifacts", name, "versions", "1", *more]:
                found = self.artifacts.get(name)
                if more == ["content"] and version == "v3":
                    more = []
        if found is None and version == "v3":
            return _json({"status": 404, "name": "ContentNotFoundException", "title": "No"}, 404)
        if found is None:
            return _json({"error_code": 404, "message": "No content"}, 404)
        if more == ["references"]:
            return _json(
                [
                    {"groupId": None, "artifactId": name, "version": "1", "name": name}
                    for name in found["refs"]
                ]
            )
        kind = {"X-Registry-ArtifactType": found["kind"]} if version == "v3" else {}
        return 200, found["text"].encode(), kind


def _guid(number: int) -> str:
    return str(uuid.UUID(bytes=hashlib.md5(str(number).encode()).digest()))


def _json(value: Any, status: int = 200) -> tuple[int, bytes, dict[str, str]]:
    kind = {"content-type": "application/vnd.schemaregistry.v1+json"}
    return status, orjson.dumps(value), kind
