"""What one who asks can hold of the server: half a minute, and few connections; others are answered meanwhile."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Flask, request

from fmcluster.explore import _bounded_server
from fmcluster.explore._bounded_server import BoundedServer
from fmcluster.explore._serve import refuse_others

Connect = Callable[[bytes], socket.socket]
ASKED = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
POSTED = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.fixture
def application() -> Flask:
    app = Flask(__name__)
    app.add_url_rule("/", "index", lambda: f"{len(request.get_data())} bytes", methods=["GET", "POST"])
    app.add_url_rule("/large", "large", lambda: b"0" * (32 << 20))
    refuse_others(app)
    return app


@pytest.fixture
def connect(application: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """What sends some bytes to a server of few connections and short times."""
    for name, value in {"MOST": 4, "RECEIVED": 1, "TAKEN": 2}.items():
        monkeypatch.setattr(_bounded_server, name, value)
    with ExitStack() as opened:
        server = BoundedServer("127.0.0.1", port=0, app=application)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        opened.callback(server.server_close)
        opened.callback(server.shutdown)

        def send(sent: bytes) -> socket.socket:
            connection = opened.enter_context(socket.create_connection(("127.0.0.1", server.server_port), timeout=20))
            connection.sendall(sent)
            return connection

        yield send


def answer_of(connection: socket.socket) -> bytes:
    """Return all that comes until the other side closes."""
    parts: list[bytes] = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def status_of(connection: socket.socket) -> str:
    return answer_of(connection).partition(b"\r\n")[0].decode()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (ASKED, "HTTP/1.1 200 OK"),
        (POSTED + b"Content-Length: 3\r\n\r\nabc", "HTTP/1.1 200 OK"),
        (POSTED + b"Content-Length: 3\r\n\r\nabc" + 3 * ASKED, "HTTP/1.1 200 OK"),
        (POSTED + b"Content-Length: 999999999999\r\n\r\nabc", "HTTP/1.1 413 REQUEST ENTITY TOO LARGE"),
        (
            POSTED + b"Content-Length: %022d\r\n\r\nabc" % 10**9,
            "HTTP/1.1 413 REQUEST ENTITY TOO LARGE",
        ),
        (POSTED + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\nabc", "HTTP/1.1 411 LENGTH REQUIRED"),
        (POSTED + b"X: y\r\n" * 10_000 + b"\r\n", "HTTP/1.1 431 Too many headers"),
        (POSTED + b"Content-Length: 7\r\n\r\nabc", ""),
        (POSTED, ""),
        (b"", ""),
    ],
    ids=["get", "post", "several", "large", "zeros", "chunks", "headers", "cut", "no end", "nothing"],
)
def test_a_request_is_answered_or_closed_in_its_time(connect: Connect, sent: bytes, status: str) -> None:
    started = time.monotonic()
    assert status_of(connect(sent)) == status
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("length", [b"-1", b"x", b"+3"])
def test_a_length_that_is_none_is_nothing(connect: Connect, length: bytes) -> None:
    assert b"200 OK" in answer_of(connect(POSTED + b"Content-Length: " + length + b"\r\n\r\nabc"))


@pytest.mark.slow
def test_headers_that_come_byte_by_byte_are_not_waited_for(connect: Connect) -> None:
    connection = connect(ASKED[:-4])
    started = time.monotonic()
    with pytest.raises(ConnectionError):
        while time.monotonic() - started < 10:
            connection.sendall(b"a")
            time.sleep(0.05)
    assert time.monotonic() - started < 5


@pytest.mark.slow
def test_an_answer_that_nobody_takes_is_not_kept(connect: Connect) -> None:
    connection = connect(ASKED.replace(b"/ ", b"/large "))
    time.sleep(3)
    assert len(answer_of(connection)) < 32 << 20
    assert len(answer_of(connect(ASKED.replace(b"/ ", b"/large ")))) > 32 << 20


def test_others_are_answered_while_many_hold_connections(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_bounded_server, "RECEIVED", 1000)
    before = threading.active_count()
    held = [connect(ASKED[:-4]) for _ in range(40)]
    assert status_of(connect(ASKED)) == "HTTP/1.1 200 OK"
    assert threading.active_count() - before <= 8
    assert status_of(held[0]) == ""


def test_of_answers_that_take_long_few_are_begun_at_once(application: Flask, connect: Connect) -> None:
    """Their threads cannot be ended: beyond twice the number of connections, one waits, and is refused."""
    go_on = threading.Event()
    at_once: list[int] = []

    def long() -> Any:
        at_once.append(1)
        go_on.wait(20)
        return "done"

    application.add_url_rule("/long", "long", long)
    held = [connect(ASKED.replace(b"/ ", b"/long ")) for _ in range(20)]
    deadline = time.monotonic() + 5
    while len(at_once) < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    assert len(at_once) == 8
    go_on.set()
    assert {status_of(each) for each in held} == {"HTTP/1.1 200 OK", ""}
    assert status_of(connect(ASKED)) == "HTTP/1.1 200 OK"
