"""A download resumes, is bounded, and is kept only if it is what was asked for."""

from __future__ import annotations

import hashlib
import http.server
import ssl
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flashfeed.engine.model_download import Download, DownloadLimits, download, host_allowed
from flashfeed.models.errors import ModelRefused, ModelUnavailable

PEM = Path(__file__).parent / "tls" / "localhost.pem"
# A header of no keys and no tensors is a GGUF; what follows stands for the weights.
GGUF = b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + bytes(range(256)) * 400


@dataclass
class Host:
    """A TLS server on localhost and what it shall do next."""

    body: bytes = GGUF
    etag: str = '"one"'
    cut_at: list[int] = field(default_factory=list)  # bytes of the next answers' bodies
    says_length: int | None = None
    redirect: str = ""
    status: int = 200
    endless: bool = False
    ranges: bool = True
    asked: list[dict[str, str]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/m.gguf"

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        self.asked.append({"path": request.path, **dict(request.headers.items())})
        if self.redirect and request.path == "/m.gguf":
            request.send_response(302)
            request.send_header("Location", self.redirect)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        body, first = self.body, 0
        begin = request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-")
        if self.ranges and int(begin) and request.headers.get("If-Range") == self.etag:
            first = int(begin)
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        else:
            request.send_response(self.status)
        body = body[first:]
        request.send_header("ETag", self.etag)
        if self.endless:
            request.end_headers()
            while True:
                request.wfile.write(bytes(1 << 16))
        request.send_header("Content-Length", str(self.says_length or len(body)))
        request.end_headers()
        request.wfile.write(body[: self.cut_at.pop(0)] if self.cut_at else body)
        request.close_connection = True


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashfeed.engine.model_download._PAUSE_S", 0)


@pytest.fixture
def host() -> Iterator[Host]:
    one = Host()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            one.answer(self)

        def log_message(self, *_: Any) -> None: ...

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # the client has had enough
                self.close_connection = True

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(PEM)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    one.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield one
    server.shutdown()
    server.server_close()


@pytest.fixture
def limits(host: Host) -> DownloadLimits:
    return DownloadLimits(
        allow_hosts=(f"localhost:{host.port}",),
        tls=ssl.create_default_context(cafile=str(PEM)),
    )


def sha256(body: bytes = GGUF) -> str:
    return hashlib.sha256(body).hexdigest()


def get(host: Host, limits: DownloadLimits, folder: Path, digest: str = "") -> Path:
    return download(Download(host.url, digest), limits, folder, lambda _: None)


def left(folder: Path) -> set[str]:
    """What a download left beside its lock."""
    return {file.suffix for file in folder.iterdir()} - {".lock"}


def test_a_download_is_kept_and_not_fetched_again(
    host: Host, limits: DownloadLimits, tmp_path: Path
) -> None:
    path = get(host, limits, tmp_path, sha256())
    assert path.read_bytes() == GGUF
    assert path.name.endswith("-m.gguf")
    assert get(host, limits, tmp_path, sha256()) == path
    assert len(host.asked) == 1
    assert left(tmp_path) == {".gguf"}


def test_a_cut_connection_goes_on_where_it_was(
    host: Host, limits: DownloadLimits, tmp_path: Path
) -> None:
    host.cut_at = [10, 50_000]
    assert get(host, limits, tmp_path, sha256()).read_bytes() == GGUF
    assert [one.get("Range") for one in host.asked] == [None, "bytes=10-", "bytes=50010-"]
    assert host.asked[1]["If-Range"] == '"one"'


def test_another_process_goes_on_after_a_kill(
    host: Host, limits: DownloadLimits, tmp_path: Path
) -> None:
    host.cut_at = [5000] + [0] * 9
    with pytest.raises(ModelUnavailable, match="cut after 5000 of"):
        get(host, limits, tmp_path)
    assert left(tmp_path) == {".part", ".json"}
    host.cut_at, host.asked = [], []
    assert get(host, limits, tmp_path).read_bytes() == GGUF
    assert [one.get("Range") for one in host.asked] == ["bytes=5000-"]


def test_a_file_that_changed_meanwhile_is_fetched_anew(
    host: Host, limits: DownloadLimits, tmp_path: Path
) -> None:
    host.cut_at = [5000] + [0] * 9
    with pytest.raises(ModelUnavailable):
        get(host, limits, tmp_path)
    host.cut_at, host.etag, host.body = [], '"two"', GGUF[:24] + bytes(7000)
    assert get(host, limits, tmp_path).read_bytes() == host.body


@pytest.mark.parametrize("change", [{"etag": 'W/"weak"'}, {"ranges": False}])
def test_without_ranges_or_a_strong_etag_it_starts_over(
    host: Host, limits: DownloadLimits, tmp_path: Path, change: dict[str, Any]
) -> None:
    for name, value in change.items():
        setattr(host, name, value)
    host.cut_at = [5000]
    assert get(host, limits, tmp_path, sha256()).read_bytes() == GGUF


def test_a_size_over_the_limit_is_refused_before_it_is_fetched(
    host: Host, limits: DownloadLimits, tmp_path: Path
) -> None:
    small = DownloadLimits(limits.allow_hosts, size_max_bytes=1000, tls=limits.tls)
    with pytest.raises(ModelRefused, match="size_max_bytes"):
        get(host, small, tmp_path)
    assert left(tmp_path) == set()


def test_an_endless_answer_is_cut_at_the_limit(
    host: Host, limits: DownloadLimits, tmp_path: Path
) -> None:
    host.endless = True
    small = DownloadLimits(limits.allow_hosts, size_max_bytes=1 << 20, tls=limits.tls)
    with pytest.raises(ModelRefused):
        get(host, small, tmp_path)
    assert left(tmp_path) == set()


def test_all_downloads_together_are_bounded(
    host: Host, limits: DownloadLimits, tmp_path: Path
) -> None:
    (tmp_path / "other.gguf").write_bytes(bytes(200_000))
    small = DownloadLimits(limits.allow_hosts, total_max_bytes=250_000, tls=limits.tls)
    with pytest.raises(ModelRefused, match="downloads_max_bytes"):
        get(host, small, tmp_path)


def test_a_length_that_is_too_long_is_a_cut_and_one_too_short_another_file(
    host: Host, limits: DownloadLimits, tmp_path: Path
) -> None:
    host.says_length = len(GGUF) - 100
    with pytest.raises(ModelRefused, match="expected sha256"):
        get(host, limits, tmp_path, sha256())
    host.says_length, host.etag = len(GGUF) + 100, ""
    with pytest.raises(ModelUnavailable, match="cut after"):
        get(host, limits, tmp_path, sha256())


def test_a_wrong_hash_is_not_kept(host: Host, limits: DownloadLimits, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=f"expected sha256 {'0' * 64}, got {sha256()}"):
        get(host, limits, tmp_path, "0" * 64)
    assert left(tmp_path) == set()


@pytest.mark.parametrize("body", [b"<html>" + bytes(3 << 20), GGUF[:10]])
def test_what_is_no_gguf_is_not_kept(
    host: Host, limits: DownloadLimits, tmp_path: Path, body: bytes
) -> None:
    host.body = body
    with pytest.raises(ModelRefused, match=r"expected a .*GGUF"):
        get(host, limits, tmp_path)
    assert left(tmp_path) == set()


def test_a_redirect_goes_to_allowed_hosts_only(
    host: Host, limits: DownloadLimits, tmp_path: Path
) -> None:
    host.redirect = f"https://localhost:{host.port}/real.gguf"
    assert get(host, limits, tmp_path / "a").read_bytes() == GGUF
    for elsewhere in (
        f"https://127.0.0.1:{host.port}/m.gguf",
        f"http://localhost:{host.port}/m.gguf",
        "file:///etc/passwd",
    ):
        host.redirect = elsewhere
        with pytest.raises(ModelRefused):
            get(host, limits, tmp_path / "b")
    assert {one["path"] for one in host.asked} == {"/m.gguf", "/real.gguf"}


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_the_host_does_not_have_is_refused_at_once(
    host: Host, limits: DownloadLimits, tmp_path: Path, status: int
) -> None:
    host.status = status
    with pytest.raises(ModelRefused, match=str(status)):
        get(host, limits, tmp_path)
    assert len(host.asked) == 1


def test_a_host_that_is_not_allowed_is_not_asked(host: Host, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="allow_hosts"):
        get(host, DownloadLimits(), tmp_path)
    assert host.asked == []


def test_a_certificate_that_nobody_knows_is_not_trusted(
    host: Host, limits: DownloadLimits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flashfeed.engine.model_download._TRIES", 1)
    with pytest.raises(ModelUnavailable, match="CERTIFICATE"):
        get(host, DownloadLimits(limits.allow_hosts), tmp_path)


def test_two_at_once_download_once(host: Host, limits: DownloadLimits, tmp_path: Path) -> None:
    got: list[Path] = []
    threads = [
        threading.Thread(target=lambda: got.append(get(host, limits, tmp_path))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 4
    assert len(set(got)) == len(host.asked) == 1


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://example.com/m.gguf", True),
        ("https://EXAMPLE.com./m.gguf", True),
        ("https://example.com:443/m.gguf", True),
        ("https://example.com:8443/m.gguf", False),
        ("https://cdn.hf.co:99/m.gguf", True),
        ("http://example.com/m.gguf", False),
        ("https://user@example.com/m.gguf", False),
        ("https://example.com@evil.org/m.gguf", False),
        ("https://evil.org/example.com", False),
        ("https://notexample.com/m.gguf", False),
        ("https://hf.co:99/m.gguf", False),
        ("https://evilhf.co:99/m.gguf", False),
        ("https://[::1/m.gguf", False),
        ("https://example.com:x/m.gguf", False),
        ("file:///example.com", False),
    ],
)
def test_hosts_are_compared_whole(url: str, allowed: bool) -> None:
    assert host_allowed(url, ("example.com", "*.hf.co:99")) is allowed
