"""A server of the S3 protocol on loopback, and a proxy before it that fails as it is told to."""

import http.client
import logging
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import obstore
from moto.server import ThreadedMotoServer
from obstore.store import S3Store


class Proxy(BaseHTTPRequestHandler):
    """Hands requests on; of those whose method and part of the path are in `plan`, the next fails in that way."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer's body would wait for its head's receipt, 40 ms each

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.lock:
            self.server.asked.append(f"{self.command} {self.path}")
            fault = next((f for f in self.server.plan if f[0] == self.command and f[1] in self.path), None)
            if fault is not None:
                self.server.plan.remove(fault)
                self.server.failed.append(fault)
        kind = None if fault is None else fault[2]
        if kind == "drop":
            self.close_connection = True
            self.connection.close()
            return
        if kind in (500, 503):
            self.reply(kind, {}, b"<Error><Code>SlowDown</Code></Error>")
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=30)
        try:
            upstream.request(self.command, self.path, body=body, headers=dict(self.headers))
            response = upstream.getresponse()
            content = response.read()
            if kind == "lost":  # the answer, and not the request
                self.close_connection = True
                self.connection.close()
                return
            headers = dict(response.getheaders())
            self.reply(response.status, headers, content, cut=kind == "truncate")
        finally:
            upstream.close()

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer

    def reply(self, status, headers, content, *, cut=False):
        self.send_response(status)
        dropped = ("content-length", "transfer-encoding", "connection", "date", "server")
        for key, value in headers.items():
            if key.lower() not in dropped:
                self.send_header(key, value)
        length = headers.get("Content-Length", str(len(content))) if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.close_connection = True

    def log_message(self, *_):
        """Nothing is printed."""


@contextmanager
def s3_server():
    """Serve; yields the proxy's server, with its `url`, and the lists `plan`, `failed` and `asked`."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    proxy.daemon_threads = True
    proxy.upstream, proxy.lock = moto.get_host_and_port()[1], threading.Lock()
    proxy.plan, proxy.failed, proxy.asked = [], [], []
    proxy.url = f"http://127.0.0.1:{proxy.server_address[1]}"
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    connection = http.client.HTTPConnection("127.0.0.1", proxy.upstream, timeout=30)
    connection.request("PUT", "/bucket")
    assert connection.getresponse().status == 200
    connection.close()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
        moto.stop()


def environment_of(server):
    """Return what a process has to have in its environment to find the server."""
    return {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server.url,
        "NO_PROXY": "127.0.0.1",
    }


def keys_of(server, prefix):
    """What lies below a prefix, past the proxy."""
    return sorted(objects_of(server, prefix))


def objects_of(server, prefix):
    """What lies below a prefix, past the proxy, with its content."""
    store = S3Store(
        "bucket",
        prefix=prefix,
        endpoint=f"http://127.0.0.1:{server.upstream}",
        access_key_id="a",
        secret_access_key="b",
        region="us-east-1",
        client_options={"allow_http": True},
    )
    keys = [each["path"] for part in obstore.list(store) for each in part]
    return {key: bytes(obstore.get(store, key).bytes()) for key in keys}


def key_of(url):
    """Return the key of a URL in the bucket."""
    return url.removeprefix("s3://bucket/")


def files_of(path):
    """Return what lies in a folder, with its content, by names as objects have them."""
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def expire(monkeypatch):
    """Let every lock in the bucket be older than it may be."""
    real = time.time
    monkeypatch.setattr("fmcluster.store.files._bucket_lock.time.time", lambda: real() + 600)
