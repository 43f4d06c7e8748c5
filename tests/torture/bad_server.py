"""A web server on this machine that answers as it should, or in one of many other ways."""

# ruff: noqa: ARG001 - every answer takes the same arguments
from __future__ import annotations

import http.server
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Handler = http.server.BaseHTTPRequestHandler
PAUSE = 0.6
"""Longer than a reader of these tests waits."""


@contextmanager
def serving(files: dict[str, bytes], answer: list[Callable[[Handler, bytes], Any]]) -> Iterator[str]:
    """Serve files by the answer that stands first in a list; yields the address."""

    class Own(Handler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.close_connection = True
            content = files.get(self.path.lstrip("/"))
            try:
                (right if content is None else answer[0])(self, content or b"")
            except OSError:
                pass  # the reader has gone

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Own)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _send(to: Handler, body: bytes, status: int = 200, **headers: Any) -> None:
    to.send_response(status)
    for name, value in {"Content_Length": len(body), "Connection": "close", **headers}.items():
        if value is not None:
            to.send_header(name.replace("_", "-"), str(value))
    to.end_headers()
    to.wfile.write(body)


def right(to: Handler, body: bytes) -> None:
    _send(to, body, 200 if body else 404)


def slow_but_right(to: Handler, body: bytes) -> None:
    _send(to, b"", Content_Length=len(body))
    for start in range(0, len(body), 1 + len(body) // 8):
        time.sleep(0.02)
        to.wfile.write(body[start : start + 1 + len(body) // 8])
        to.wfile.flush()


def dies_at_once(to: Handler, body: bytes) -> None:
    to.connection.close()


def dies_in_the_middle(to: Handler, body: bytes) -> None:
    _send(to, body[: len(body) // 2], Content_Length=len(body))


def dies_in_the_middle_unseen(to: Handler, body: bytes) -> None:
    _send(to, body[: len(body) // 2], Content_Length=None)


def dies_in_a_chunk(to: Handler, body: bytes) -> None:
    _send(to, b"400\r\n" + body[:100], Content_Length=None, Transfer_Encoding="chunked")


def stops_answering(to: Handler, body: bytes) -> None:
    time.sleep(PAUSE)


def stops_in_the_middle(to: Handler, body: bytes) -> None:
    _send(to, body[: len(body) // 2], Content_Length=len(body))
    to.wfile.flush()
    time.sleep(PAUSE)


def sends_another_file(to: Handler, body: bytes) -> None:
    _send(to, body[:-1] + bytes([body[-1] ^ 1]))


def sends_a_page(to: Handler, body: bytes) -> None:
    _send(to, b"<html>Please log in</html>", Content_Type="text/html")


def sends_nothing(to: Handler, body: bytes) -> None:
    _send(to, b"")


def sends_without_end(to: Handler, body: bytes) -> None:
    _send(to, b"", Content_Length=None)
    while True:
        to.wfile.write(b"x" * 2**16)


def sends_too_much(to: Handler, body: bytes) -> None:
    _send(to, body + b"more")


def states_too_little(to: Handler, body: bytes) -> None:
    _send(to, body, Content_Length=len(body) - 7)


def states_no_number(to: Handler, body: bytes) -> None:
    _send(to, body, Content_Length="many")


def claims_to_be_packed(to: Handler, body: bytes) -> None:
    _send(to, body, Content_Encoding="gzip")


def sends_in_circles(to: Handler, body: bytes) -> None:
    _send(to, b"", 302, Location=to.path)


def sends_elsewhere(to: Handler, body: bytes) -> None:
    _send(to, b"", 302, Location="http://127.0.0.1:9/none")


def sends_to_no_address(to: Handler, body: bytes) -> None:
    _send(to, b"", 302, Location="http://[")


def speaks_nonsense(to: Handler, body: bytes) -> None:
    to.wfile.write(b"\xff\x00 nonsense\r\n\r\n")


def has_endless_headers(to: Handler, body: bytes) -> None:
    to.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n" + body)


def refuses(status: int) -> Callable[[Handler, bytes], None]:
    def refuse(to: Handler, body: bytes) -> None:
        _send(to, b"no", status)

    refuse.__name__ = f"answers {status}"
    return refuse


HELD: list[Callable[[Handler, bytes], None]] = [right, slow_but_right]
WRONG: list[Callable[[Handler, bytes], None]] = [
    dies_at_once,
    dies_in_the_middle,
    dies_in_the_middle_unseen,
    dies_in_a_chunk,
    stops_answering,
    stops_in_the_middle,
    sends_another_file,
    sends_a_page,
    sends_nothing,
    sends_without_end,
    sends_too_much,
    states_too_little,
    states_no_number,
    claims_to_be_packed,
    sends_in_circles,
    sends_elsewhere,
    sends_to_no_address,
    speaks_nonsense,
    has_endless_headers,
    *(refuses(status) for status in (401, 403, 404, 429, 500, 503)),
]
