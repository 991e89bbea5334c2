"""Copy of a run in an object store: its files, checked against what its commits vouch for, then its root."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ...errors import StoreError, Unreachable
from .._compat import open_store, read_bytes
from ..files import (
    LARGEST_PUT,
    ConflictError,
    get_object,
    holds_parts_of_runs,
    is_bucket,
    list_bucket,
    open_bucket,
    put_object,
    refuse_whole_bucket,
)
from ..format import KEY, LARGEST, CommittedFiles, check_digest, check_no_links, check_root, check_whole, committed_root
from ._nodes import Node

_AT_ONCE = 8  # uploads


class _File(NamedTuple):
    name: str
    checksums: str
    sharded: bool


@dataclass(frozen=True)
class CopiedRun:
    """What was copied.

    Attributes
    ----------
    url : str
        Where the run lies now.
    n_snapshots : int
        How many it has there.
    n_files, nbytes : int
        Files that were sent, and their bytes.
    n_there : int
        Files that lay there already, with the same content.
    """

    url: str
    n_snapshots: int
    n_files: int
    nbytes: int
    n_there: int


def copy_run(run: str | os.PathLike[str], url: str, *, progress: Callable[[int, int], None] | None = None) -> CopiedRun:
    """Copy a run's whole snapshots into an object store.

    Every file is compared with what its commit vouches for before it is sent. The root follows last, in one request
    that succeeds only if nobody else has written one meanwhile, so that a reader sees the whole copy or what was there
    before. What breaks off goes on where it was: files that lie there with the same MD5 are not sent again. A copy can
    be brought up to date, with the snapshots that were recorded since.

    Parameters
    ----------
    run : path-like
        The run, a folder of this machine. It may be being recorded: its snapshots so far are copied.
    url : str
        Where to, such as ``s3://bucket/run.zarr``. Credentials, region and endpoint are those of the environment.
    progress : callable, optional
        Called with the number of files done and the number of all, after each.

    Returns
    -------
    CopiedRun

    Raises
    ------
    ValueError
        Where `url` is of no object store or a whole bucket, or `run` is a URL.
    ImportError
        Where obstore is not installed.
    StoreError
        Where a file of the run is damaged, another run lies at `url`, somebody else writes there, or the store cannot
        be reached. The copy is then as it was.
    """
    path = os.fspath(run)
    if "://" in path:
        raise ValueError(f"run is {path!r}; expected a folder of this machine, which is copied from there to a URL")
    if not is_bucket(url):
        raise ValueError(f"url is {url!r}; expected one of an object store, such as s3://bucket/run.zarr")
    refuse_whole_bucket(url.rstrip("/"))
    try:
        import obstore  # noqa: F401
    except ImportError as error:
        raise ImportError("copying to an object store needs obstore: pip install 'fmcluster[s3]'") from error
    root = committed_root(path)
    check_no_links(Path(path), nodes=root["consolidated_metadata"]["metadata"])
    bucket = open_bucket(url)
    there = list_bucket(bucket, url=url)
    before = _root_there(bucket, url, known=there)
    if before is not None:
        _check_same_run(path, url, root=root, before=before[0])
    todo = list(_files(path, root))
    sent = _Sender(bucket, url=url, folder=Path(path), there=there)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for done, _ in enumerate(pool.map(sent.send, todo), start=1):
            if progress is not None:
                progress(done, len(todo))
    if before is not None and before[0] == root:
        sent.n_there += 1
    else:
        content = (json.dumps(root, indent=1)).encode()
        sent.put("zarr.json", content, over="nothing" if before is None else before[1])
    nodes = root["consolidated_metadata"]["metadata"]
    for name, node in nodes.items():  # for programs that open one by itself; never ahead of the root
        sent.put_if_new(f"{name}/zarr.json", _node_bytes(node))
    return CopiedRun(url, len(root["attributes"][KEY]["commits"]), sent.n_files, sent.nbytes, sent.n_there)


def _node_bytes(node: Node) -> bytes:
    return json.dumps(node, indent=1).encode()


def _root_there(bucket: Any, url: str, *, known: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any]] | None:
    """Return the root that lies at a URL, and by what a put knows it; None where there is none."""
    if "zarr.json" not in known:
        if not holds_parts_of_runs(known):
            raise StoreError(f"{url} holds something that is no run; it is left as it is. Copy to another URL.")
        return None
    found = get_object(bucket, "zarr.json", url=url, at_most=LARGEST)
    if found is None:  # removed at this moment
        return None
    try:
        root = json.loads(found.content)
        check_root(url, root)
        check_digest(url, root)
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{url} holds something that is no run; it is left as it is. Copy to another URL.") from error
    return root, found.tag


def _check_same_run(path: str, url: str, *, root: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """See that what lies at a URL are the first snapshots of the run."""
    mine, other = root["attributes"][KEY]["commits"], before["attributes"][KEY]["commits"]
    if mine[: len(other)] != other:
        raise StoreError(
            f"{url} holds another run than {path}, or more of it: its {len(other)} snapshots are not the first of the "
            f"{len(mine)} there. It is left as it is; copy to another URL."
        )


def _files(path: str, root: Mapping[str, Any]) -> Iterator[_File]:
    """Yield the names of the files that the commits vouch for, with the checksums of their chunks."""
    about = root["attributes"][KEY]
    store = open_store(path)
    commits = CommittedFiles(path, store=store, commits=about["commits"], constant=about["constant"])
    nodes = root["consolidated_metadata"]["metadata"]
    for snapshot in (None, *range(len(about["commits"]))):
        for array, keys in commits.files(snapshot).items():
            if array not in nodes:
                raise StoreError(
                    f"{path} is damaged: its commits vouch for files of {array[:80]!r}, which it does not hold."
                )
            sharded = nodes[array]["codecs"][0]["name"] == "sharding_indexed"
            for key, checksums in keys.items():
                yield _File(f"{array}/{key}", checksums, sharded)


class _Sender:
    """Puts files into a bucket, and counts them."""

    def __init__(self, bucket: Any, *, url: str, folder: Path, there: Mapping[str, tuple[int, str]]) -> None:
        self._bucket, self._url, self._folder, self._there = bucket, url, folder, there
        self._store = open_store(str(folder))
        self.n_files = self.nbytes = self.n_there = 0

    def send(self, file: _File) -> None:
        """Send a file of the run, unless it lies there already."""
        try:
            content = read_bytes(self._store, file.name, at_most=LARGEST_PUT)
            if content is None:
                raise FileNotFoundError("it is missing or empty")
            check_whole(content, file.checksums, sharded=file.sharded)
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{self._folder} is damaged: {file.name} cannot be copied ({error}). The copy at {self._url} is as it "
                f"was. `fmcluster verify` lists all damage."
            ) from error
        self.put_if_new(file.name, content)

    def put_if_new(self, name: str, content: bytes) -> None:
        """Put a file where nothing lies, or over what lay there at the beginning, unless that has the same MD5."""
        size, tag = self._there.get(name, (-1, ""))
        if size == len(content) and tag.strip('"') == md5(content, usedforsecurity=False).hexdigest():
            self.n_there += 1
        else:
            self.put(name, content, over={"e_tag": tag} if tag else "nothing" if size < 0 else "anything")

    def put(self, name: str, content: bytes, *, over: Literal["nothing", "anything"] | Mapping[str, Any]) -> None:
        """Put a file over what may lie there; see `put_object`."""
        try:
            put_object(self._bucket, name, content=content, url=self._url, over=over)
        except ConflictError as error:
            raise StoreError(
                f"{self._url} was written by another process meanwhile, and is as that one left it. Copy again."
            ) from error
        except Unreachable as error:
            raise type(error)(f"{error} The copy goes on from here when it is started again.") from error
        self.n_files += 1
        self.nbytes += len(content)
