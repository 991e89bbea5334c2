"""Bounded server: werkzeug's, with bounds to what one who asks can hold of it, so that others are still answered."""

import socket
import time
from contextlib import suppress
from io import BytesIO
from threading import Condition
from typing import Any

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

LARGEST = 4 << 20  # bytes of a request; the page's own have some kB
MOST = 32  # connections at once; a browser has six
RECEIVED = 30  # seconds in which a request has to be there
TAKEN = 600  # seconds in which the answer has to be taken
ENDED = 1  # seconds in which the thread of a connection that was closed ends, unless it is busy


class Quiet(WSGIRequestHandler):
    """Says what went wrong, and not that a page was asked for."""

    server: "BoundedServer"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""

    def make_environ(self) -> dict[str, Any]:
        """Receive the whole request, unless it is one that is refused."""
        environ = super().make_environ()
        length = environ.get("CONTENT_LENGTH", "0")
        is_number = length.isdecimal() and len(length) < 20
        if is_number and int(length) <= LARGEST and "HTTP_TRANSFER_ENCODING" not in environ:
            environ["wsgi.input"] = BytesIO(self.rfile.read(int(length)))
            self.rfile.close()
            self.rfile = BytesIO()  # what follows is of no request; werkzeug would wait for its end
            self.server.received(self.connection)
        return environ


class BoundedServer(ThreadedWSGIServer):
    """Serves an application, a thread for each connection.

    A connection is closed that has not sent its request after half a minute, or not taken the answer after ten. Of 32
    connections, the one that has lasted longest is closed when another one comes.

    Parameters
    ----------
    host : str
        The address to listen at.
    port : int
        Its port; 0 for any that is free.
    app : WSGI application
        What answers.
    """

    def __init__(self, host: str, *, port: int, app: Any) -> None:
        self._until: dict[socket.socket, float] = {}  # of connections, the oldest first; 0: closed, its thread goes on
        self._guard = Condition()
        super().__init__(host, port, app, Quiet)

    def received(self, connection: socket.socket) -> None:
        """Note that the whole request of a connection is there."""
        with self._guard:
            if self._until.get(connection):
                self._until[connection] = time.monotonic() + TAKEN

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a request in a thread of its own."""
        with self._guard:
            is_room = self._guard.wait_for(lambda: len(self._until) < 2 * MOST, timeout=ENDED)
            open_ones = [each for each, until in self._until.items() if until]
            if is_room:
                self._until[request] = time.monotonic() + RECEIVED
                if len(open_ones) >= MOST:
                    self._end(open_ones[0])
        if is_room:
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a request."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._guard:
                self._until.pop(request, None)
                self._guard.notify_all()

    def service_actions(self) -> None:
        """Close connections that have lasted too long; called twice a second."""
        now = time.monotonic()
        with self._guard:
            for connection in [each for each, until in self._until.items() if 0 < until < now]:
                self._end(connection)

    def _end(self, connection: socket.socket) -> None:
        self._until[connection] = 0
        with suppress(OSError):  # closed by the other side
            connection.shutdown(socket.SHUT_RDWR)  # what its thread waits for ends at once
