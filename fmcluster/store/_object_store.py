"""Object store: the bucket behind a URL, by way of obstore; what goes wrong there is one sentence."""

import os
from datetime import timedelta
from typing import Any

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore

from ..errors import StoreError

SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss")
_RETRIES: Any = {"max_retries": 6, "retry_timeout": timedelta(seconds=60)}  # pauses grow
_WAITS: Any = {"connect_timeout": "5 seconds", "timeout": "60 seconds"}


def is_bucket(url: str) -> bool:
    """Whether a URL is of an object store that obstore knows."""
    return url.partition("://")[0] in SCHEMES


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
        raise StoreError(unreachable(url, error)) from error


def unreachable(url: str, error: Exception) -> str:
    """Say in one sentence why an object store did not answer as it should."""
    text = " ".join(str(error).split())
    lower = text.lower()
    if "169.254.169.254" in text or "metadata" in lower or "credential" in lower:
        why = (
            "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or for a public bucket "
            "AWS_SKIP_SIGNATURE=true"
        )
    elif "NoSuchBucket" in text or "bucket does not exist" in lower:
        why = "there is no such bucket, or it is in another region (AWS_REGION)"
    elif "InvalidAccessKeyId" in text or "SignatureDoesNotMatch" in text or "403" in text or "AccessDenied" in text:
        why = "the credentials are not accepted there"
    else:
        why = text[:300]
    return f"{url} cannot be reached: {why}."


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
        from obstore.exceptions import BaseError

        try:
            return await super().get(key, prototype, byte_range)
        except BaseError as error:
            raise StoreError(unreachable(self.url, error)) from error

    async def getsize(self, key: str) -> int:
        """Return the size of a key in bytes."""
        from obstore.exceptions import BaseError

        try:
            return await super().getsize(key)
        except BaseError as error:
            raise StoreError(unreachable(self.url, error)) from error

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
    from obstore.exceptions import BaseError

    try:
        return {
            each["path"]: (int(each["size"]), str(each["e_tag"] or ""))
            for part in obstore.list(bucket)
            for each in part
        }
    except FileNotFoundError as error:
        raise StoreError(f"{url} cannot be reached: there is no such bucket.") from error
    except BaseError as error:
        raise StoreError(unreachable(url, error)) from error
