"""Object store: the bucket behind a URL, by way of obstore; what goes wrong there is one sentence."""

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore

from ...errors import Refused, StoreError, Unreachable

SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss")
_RETRIES: Any = {"max_retries": 6, "retry_timeout": timedelta(seconds=60)}  # pauses grow
LARGEST_PUT = 5 << 30  # bytes of an object; a bucket takes no more in one request
_ATTEMPTS = 6  # of a conditional put, which obstore does not make again where its answer was lost
_REFUSED = re.compile(r"status code: 40[13]\b|InvalidAccessKeyId|SignatureDoesNotMatch|AccessDenied|Forbidden")
_MISSING = re.compile(r"Missing (Access|SecretAccess)Key")
_EXPECTED_REGION = re.compile(r"expecting '([a-z0-9-]{1,40})'")
_GIVES_CREDENTIALS = ("169.254.", "[fd00:ec2::", "metadata.")  # hosts asked where the environment has none
_NO_BUCKET = "there is no such bucket, or it is in another region (AWS_REGION)"
_WAITS: Any = {"connect_timeout": "5 seconds", "timeout": "60 seconds"}


class Found(NamedTuple):
    """An object: what it holds, and by what a later put knows that it is still the same."""

    content: bytes
    tag: Mapping[str, Any]


class ConflictError(Exception):
    """Another object lies where one was to be put."""


def is_bucket(url: str) -> bool:
    """Whether a URL is of an object store that obstore knows."""
    return url.partition("://")[0] in SCHEMES


def refuse_whole_bucket(url: str) -> None:
    """Raise `ValueError` where a URL is of no folder in a bucket."""
    above, _, name = url.rpartition("/")
    if not name or above.endswith(":/"):
        raise ValueError(f"path is {url}, a whole bucket; expected a folder in it, such as {url}/run.zarr")


def open_bucket(url: str) -> Any:
    """Return obstore's store at a URL; its keys are relative to the URL.

    Credentials, region and endpoint are those of the environment (``AWS_ACCESS_KEY_ID``, ``AWS_REGION``,
    ``AWS_ENDPOINT_URL``, and so on).

    Raises
    ------
    ImportError
        Where obstore is not installed.
    StoreError
        Where the URL cannot be meant.
    """
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    options: Any = dict(_WAITS)
    if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        options["allow_http"] = "true"
    try:
        return from_url(url, client_options=options, retry_config=_RETRIES)
    except (BaseError, ValueError) as error:
        raise unreachable(url, error) from error


def unreachable(url: str, error: Exception) -> Unreachable:
    """Return the error that says in one sentence why an object store did not answer as it should."""
    text = " ".join(str(error).partition("Debug source:")[0].split())
    # Addresses and durations hold any digits and words: judged is by what was answered, and by whom.
    asked = re.search(r"Error performing \S+ (\S+) in \S+.*? - (.*)", text)
    host, answer = ("", text.replace(url, "")) if asked is None else (urlsplit(asked[1]).netloc, asked[2])
    if host.startswith(_GIVES_CREDENTIALS) or _MISSING.search(answer) or "locate credentials" in answer:
        why = (
            "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or for a public bucket "
            "AWS_SKIP_SIGNATURE=true"
        )
    elif "NoSuchBucket" in answer or "bucket does not exist" in answer.lower():
        why = _NO_BUCKET
    elif _REFUSED.search(answer) is not None:
        why = "the credentials are not accepted there"
    elif "configured region" in answer or "AuthorizationHeaderMalformed" in answer:
        told = _EXPECTED_REGION.search(answer)
        why = "the bucket is in another region: set AWS_REGION" + ("" if told is None else f" to {told[1]}")
    elif host and "error sending request" in answer:
        return Unreachable(f"{url} cannot be reached: nothing answers at {host}.")
    else:
        return Unreachable(f"{url} cannot be reached: {text[:300]}.")
    return Refused(f"{url} cannot be reached: {why}.")


class BucketStore(ObjectStore[Any]):
    """The files of a run in an object store, to read; a failed request is a `StoreError`.

    Parameters
    ----------
    url : str
        Where the run lies.
    """

    def __init__(self, url: str) -> None:
        super().__init__(open_bucket(url), read_only=True)
        self.url = url

    def __str__(self) -> str:
        return self.url

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return the bytes of a key, or some of them; None where there is no such key."""
        with _asking(self.url):
            return await super().get(key, prototype, byte_range)

    async def getsize(self, key: str) -> int:
        """Return the size of a key in bytes."""
        with _asking(self.url):
            return await super().getsize(key)

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all keys, in one listing."""
        return {name: size for name, (size, _) in list_bucket(self.store, url=self.url).items()}


def list_bucket(bucket: Any, *, url: str) -> dict[str, tuple[int, str]]:
    """Return size and etag of all objects below a URL, by their keys.

    Raises
    ------
    StoreError
        Where it cannot be reached.
    """
    import obstore

    try:
        with _asking(url):
            return {
                each["path"]: (int(each["size"]), str(each["e_tag"] or ""))
                for part in obstore.list(bucket)
                for each in part
            }
    except FileNotFoundError as error:
        raise Refused(f"{url} cannot be reached: there is no such bucket.") from error


def some_names(url: str) -> list[str]:
    """Return keys below a URL where no run is, at most 1,000; none where they may not be listed.

    Raises
    ------
    Unreachable
        Where there is no such bucket: that nothing lies there, a server says of none, too.
    """
    try:
        import obstore
        from obstore.exceptions import BaseError
    except ImportError:  # it was read by way of fsspec
        return []
    try:
        return [each["path"] for each in next(iter(obstore.list(open_bucket(url), chunk_size=1000)), ())]
    except (BaseError, FileNotFoundError) as error:
        failure = unreachable(url, error)
        if _NO_BUCKET in str(failure):
            raise failure from error
        return []


def get_object(bucket: Any, key: str, *, url: str, at_most: int) -> Found | None:
    """Return what lies at a key; None where nothing does.

    Raises
    ------
    Unreachable
        Where the store does not answer.
    StoreError
        Where there are more than `at_most` bytes.
    """
    import obstore

    try:
        with _asking(url):
            found = obstore.get(bucket, key)
            if found.meta["size"] > at_most:
                raise StoreError(f"{url} is damaged: its {key} is larger than {at_most:,} bytes. Pass another URL.")
            return Found(bytes(found.bytes()), _tag(found.meta))
    except FileNotFoundError:
        return None


def put_object(
    bucket: Any, key: str, *, content: bytes, url: str, over: Literal["nothing", "anything"] | Mapping[str, Any]
) -> Mapping[str, Any]:
    """Put an object; return by what a later put knows it.

    Parameters
    ----------
    bucket : object
        As `open_bucket` returns it.
    key : str
        Where to.
    content : bytes
        What it is to hold.
    url : str
        For errors.
    over : {"nothing", "anything"} or mapping
        What may lie there: nothing, anything, or only what this was returned for.

    Raises
    ------
    ConflictError
        Where something else lies there. A put whose answer was lost is none: what lies there is then what was to.
    Unreachable
        Where the store does not answer.
    """
    import obstore
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

    mode: Any = {"nothing": "create", "anything": "overwrite"}[over] if isinstance(over, str) else dict(over)
    for attempt in range(_ATTEMPTS if mode != "overwrite" else 1):
        if attempt:
            time.sleep(0.1 * 2**attempt)
        try:
            return _tag(obstore.put(bucket, key, content, mode=mode, use_multipart=False))
        except (AlreadyExistsError, PreconditionError) as error:
            found = get_object(bucket, key, url=url, at_most=max(len(content), 1 << 20))
            if found is None or found.content != content:
                raise ConflictError(key) from error
            return found.tag
        except (BaseError, FileNotFoundError) as error:
            failure = error
    raise unreachable(url, failure) from failure


def has_object(bucket: Any, key: str, *, url: str) -> bool:
    """Whether something lies at a key.

    Raises
    ------
    Unreachable
        Where the store does not answer.
    """
    import obstore

    try:
        with _asking(url):
            obstore.head(bucket, key)
    except FileNotFoundError:
        return False
    return True


def holds_parts_of_runs(names: Iterable[str]) -> bool:
    """Whether all objects below a URL may be parts of a run that has no root yet: of a copy that broke off."""
    return all(name.startswith(("layers/", "weight", "checksums/")) or "/c" in name for name in names)


def read_object(url: str, *, at_most: int) -> bytes | None:
    """Return what lies at a URL in an object store; None where nothing does.

    Parameters
    ----------
    url : str
        Of the object.
    at_most : int
        Bytes that are read; of more, none.

    Raises
    ------
    Unreachable
        Where the store does not answer.
    StoreError
        Where there are more than `at_most` bytes.
    """
    above, _, name = url.rpartition("/")
    found = get_object(open_bucket(above), name, url=url, at_most=at_most)
    return None if found is None else found.content


def write_object(url: str, content: bytes) -> None:
    """Put what is to lie at a URL in an object store, over what lies there.

    Parameters
    ----------
    url : str
        Of the object.
    content : bytes
        What it is to hold.

    Raises
    ------
    Unreachable
        Where the store does not answer.
    """
    above, _, name = url.rpartition("/")
    put_object(open_bucket(above), name, content=content, url=url, over="anything")


def remove_objects(bucket: Any, keys: Iterable[str], *, url: str) -> None:
    """Remove objects, those of them that are there.

    Raises
    ------
    Unreachable
        Where the store does not answer.
    """
    import obstore

    if listed := list(keys):
        with suppress(FileNotFoundError), _asking(url):
            obstore.delete(bucket, listed)


@contextmanager
def _asking(url: str) -> Iterator[None]:
    """Within the block, let what obstore raises be `Unreachable`; that there is no such key stays FileNotFoundError."""
    from obstore.exceptions import BaseError

    try:
        yield
    except FileNotFoundError:
        raise
    except BaseError as error:
        raise unreachable(url, error) from error


def _tag(about: Mapping[str, Any]) -> Mapping[str, Any]:
    return {key: about[key] for key in ("e_tag", "version") if about.get(key)}
