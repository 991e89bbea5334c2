"""What goes wrong at an object store is told by what was answered, not by what else stands in the message."""

import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fmcluster.store.files import unreachable

obstore = pytest.importorskip("obstore")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

REFUSED = "the credentials are not accepted there"
NO_BUCKET = "there is no such bucket, or it is in another region (AWS_REGION)"
NO_CREDENTIALS = "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
URL = "s3://bucket/run.zarr"


def message(*, about="Generic S3 error", asked="http://127.0.0.1:8000/bucket/run.zarr", took="1.2ms", answer):
    """As obstore words it."""
    return f"{about}: Error performing PUT {asked} in {took} - {answer}\n\nDebug source:\nGeneric {{ took: {took} }}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (403, "<Error><Code>SignatureDoesNotMatch</Code></Error>", REFUSED),
        (403, "", REFUSED),
        (401, "", REFUSED),
        (400, "<Error><Code>InvalidAccessKeyId</Code></Error>", REFUSED),
        (400, "<Error><Code>NoSuchBucket</Code></Error>", NO_BUCKET),
        (301, "", "the bucket is in another region: set AWS_REGION"),
        (
            400,
            "<Error><Code>AuthorizationHeaderMalformed</Code><Message>The authorization header is malformed; the "
            "region 'us-east-1' is wrong; expecting 'eu-central-1'</Message></Error>",
            "the bucket is in another region: set AWS_REGION to eu-central-1",
        ),
        (503, "<Error><Code>SlowDown</Code></Error>", "503 Service Unavailable: <Error><Code>SlowDown"),
        (500, "no credential, metadata or 403 of ours", "500 Internal Server Error: no credential"),
    ],
)
def test_what_a_server_answers_is_told(status, body, why):
    with pytest.raises(obstore.exceptions.BaseError) as raised:
        put_at_server_that_answers(status, body.encode())
    told = str(unreachable(URL, raised.value))
    assert told.startswith(f"{URL} cannot be reached: ")
    assert why in told
    assert "Debug source" not in told


@pytest.mark.parametrize("took", ["814.403ms", "4.031s", "403.1ms"])
def test_the_digits_of_a_duration_or_an_address_are_no_answer(took):
    text = message(asked="http://127.0.0.1:40312/b/403", took=f"{took}, after 6 retries", answer="status code: 503")
    assert "status code: 503" in str(unreachable(URL, Exception(text)))


def test_where_nothing_answers_is_told():
    text = message(asked="http://127.0.0.1:9/bucket/run.zarr", answer="HTTP error: error sending request")
    assert str(unreachable(URL, Exception(text))) == f"{URL} cannot be reached: nothing answers at 127.0.0.1:9."


@pytest.mark.parametrize("name", ["metadata", "credential", "AccessDenied", "NoSuchBucket", "InvalidAccessKeyId"])
def test_the_words_of_a_url_are_no_answer(name):
    url = f"s3://bucket/{name}.zarr"
    text = message(asked=f"https://s3.amazonaws.com/bucket/{name}.zarr", answer="status code: 503")
    assert "status code: 503" in str(unreachable(url, Exception(text)))
    assert "timed out" in str(unreachable(url, OSError(f"{url} timed out")))


@pytest.mark.parametrize(
    "text",
    [
        message(asked="http://169.254.169.254/latest/api/token", answer="status code: 403 Forbidden"),
        message(asked="http://metadata.google.internal/token", answer="error sending request"),
        "Generic S3 error: Missing AccessKeyId",
        "Generic S3 error: Missing SecretAccessKey",
        "Unable to locate credentials",
    ],
)
def test_where_no_credentials_are_found_is_told(text):
    assert NO_CREDENTIALS in str(unreachable(URL, Exception(text)))


def put_at_server_that_answers(status, body):
    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        store = obstore.store.S3Store(
            "bucket",
            endpoint=f"http://127.0.0.1:{server.server_address[1]}",
            access_key_id="a",
            secret_access_key="b",
            region="us-east-1",
            client_options={"allow_http": True},
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=5)},
        )
        try:
            obstore.put(store, "run.zarr", b"1")
        finally:
            server.shutdown()
