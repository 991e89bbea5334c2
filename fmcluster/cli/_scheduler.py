"""The option `--scheduler`: a Dask cluster that the heavy work of a command is done on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from concurrent.futures import Executor

Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        help="A Dask scheduler, such as tcp://host:8786, whose workers read the run and do the heavy work. They have "
        "to see the run at the same path.",
    ),
]
_SECONDS = 10


@contextmanager
def workers_of(address: str | None) -> Iterator["Executor | None"]:
    """Yield an executor on the workers of a scheduler; None where there is no address.

    Raises
    ------
    ImportError
        Where Dask is not installed.
    ConnectionError
        Where there is no scheduler, it has no worker, or it ends before the work does.
    """
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError("--scheduler needs Dask; install it with pip install 'fmcluster[dask]'") from error
    try:
        client = Client(address, timeout=_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError, ValueError) as error:
        raise ConnectionError(
            f"there is no Dask scheduler at {address} ({type(error).__name__}); start one with `dask scheduler`, and "
            f"workers with `dask worker {address}`"
        ) from error
    with client:
        if not client.nthreads():  # type: ignore[no-untyped-call]
            raise ConnectionError(f"the Dask scheduler at {address} has no workers; start one: dask worker {address}")
        try:
            yield client.get_executor()  # type: ignore[no-untyped-call]
        except Exception as error:
            if client.status == "running":
                raise
            raise ConnectionError(
                f"the Dask scheduler at {address} no longer answers. Start it and its workers again, and then this "
                f"command: what it had saved is used again"
            ) from error


def seen_by_workers(path: str, *, scheduler: str | None) -> str:
    """Return the path of a run as workers are told it, which have folders of their own: an absolute one."""
    return path if scheduler is None or "://" in path else os.path.abspath(path)  # noqa: PTH100  links stay
