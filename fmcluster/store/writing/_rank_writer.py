"""Writer of a rank: writes its own shards of the pending snapshot; another process lays the run out and commits."""

from collections.abc import Mapping
from pathlib import Path

from ...errors import StoreError
from ..format import KEY, committed_root
from ._open_storage import open_storage
from ._run_writer import RunWriter


class RankWriter(RunWriter):
    """Writes the shards of one rank into the snapshot that the run's one writer will commit.

    It holds no lock and never touches the root: whoever holds the lock tells it what was laid out (`join`), takes over
    what it wrote (`RunWriter.shards`), and tells it what was committed (`advance`).

    Parameters
    ----------
    path : path-like
        The run's folder, which every rank sees.
    """

    def __init__(self, path: str | Path) -> None:
        self._write_to(open_storage(path, locked=False))

    def join(self, digest: str) -> None:
        """Take over what was laid out, as the root says it.

        Parameters
        ----------
        digest : str
            The root's own, as `RunWriter.digest` has it.

        Raises
        ------
        StoreError
            Where this process sees no run there, or another one.
        """
        try:
            root = committed_root(self.name)
            found = root["attributes"][KEY]["digest"]
        except (OSError, StoreError) as error:
            raise StoreError(
                f"this rank sees no run at {self.name}, which rank 0 has laid out there ({error}). The ranks of a job "
                f"record into one folder that all of them see: pass a path on a shared file system"
            ) from error
        if found != digest:
            raise StoreError(
                f"this rank sees another run at {self.name} than rank 0 has laid out there. The ranks of a job record "
                f"into one folder that all of them see: pass a path on a shared file system"
            )
        self.attributes = root["attributes"][KEY]
        self.storage.join(root)
        self._nodes.resume(root["consolidated_metadata"]["metadata"], self.attributes["constant"])

    def advance(self, commit: Mapping[str, int]) -> None:
        """Begin another snapshot: the pending one was committed, with these coordinates."""
        self.attributes["commits"].append(dict(commit))
        self._nodes.resize(self.n_snapshots)
        self.shards.clear()
        self.storage.committed()

    def discard(self) -> None:
        """Remove what was written of the pending snapshot."""
        self.storage.remove(self.shards.written)
        self.shards.clear()

    def replace_root(self) -> None:
        """Leave the root to the run's one writer."""
