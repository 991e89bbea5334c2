"""Result cache: results saved beside a run, used again where what made them is the same."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import StoreError, Unreachable
from ..store import Layer, Run, escape, is_bucket
from ..vectors import DrawnPositions, Source, Vectors, unkept
from ._check_result import check_result
from ._result_files import ResultFiles, result_files, results_beside
from ._saved_result import read_result, write_result

Result = TypeVar("Result")

# What computes results: another version of these may give other numbers.
_VERSIONS = ("fmcluster", "numpy", "scipy", "scikit-learn", "openTSNE", "umap-learn")


@dataclass(frozen=True)
class ResultCache:
    """The results saved in a folder.

    Attributes
    ----------
    folder : Path or str
        ``<run>.results``, beside the run; a result is a file in it. Of a run in an object store, its URL.
    """

    folder: Path | str

    @classmethod
    def beside(cls, run: Run) -> "ResultCache | None":
        """Return the results of a run; None where there can be none: at a URL of no object store.

        A link in the place of their folder is not followed, with a warning: who made the run can have made it, too.
        """
        where = cls.path_beside(run)
        if not run.is_local:
            return cls(where) if is_bucket(where) and find_spec("obstore") is not None else None
        folder = Path(where)
        if folder.is_symlink():
            warnings.warn(f"results are neither read nor saved: {folder} is a link, not a folder", stacklevel=2)
            return None
        return cls(folder)

    @staticmethod
    def path_beside(run: Run) -> str:
        """Return the folder of a run's results, or its URL, whether or not there is one."""
        return results_beside(run.path)

    def use(
        self,
        make: Callable[[], Result],
        kind: type[Result],
        *,
        verb: str,
        vectors: Vectors | Sequence[Vectors],
        parameters: Mapping[str, Any],
    ) -> Result:
        """Return a result that was saved, or make it and save it.

        Parameters
        ----------
        make : callable
            Computes it.
        kind : type
            Its class: `Scores`, `Embedding`, `Clusters`, `Similarity`, `TopImages` or `Findings`.
        verb : str
            What makes it, such as ``"pca"``.
        vectors : Vectors, or a sequence of them
            Of what; of several layers where there are several. What the snapshots' commits vouch for, the samples and
            the rows drawn are part of the key, and so are the versions of what computes. Vectors that are not of a
            run's layer have nothing that vouches for them: nothing is saved.
        parameters : mapping
            Everything else that it depends on; values that JSON can hold.

        Returns
        -------
        object
            A result that was saved whole, under the same key, and fits the vectors: of their rows, snapshots and
            samples, in arrays of its class's types and shapes. One that does not is computed again, with a warning; a
            folder that cannot be written is a warning, too.
        """
        several = [vectors] if isinstance(vectors, Vectors) else list(vectors)
        if not all(isinstance(_whole(each), Layer) for each in several):
            return make()
        name = f"{len(several)}-layers"
        if isinstance(vectors, Vectors):
            name = f"{escape(vectors.layer)}-{escape(vectors.view)}"
        key = {"verb": verb, "parameters": dict(parameters), "of": [describe(each) for each in several]}
        digest = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        file, files = f"{name}-{verb}-{digest}.npz", result_files(self.folder)
        try:
            found = _load(files, file, kind=kind, key=key, vectors=several)
        except Exception as error:  # of a damaged file, zipfile, zlib, numpy and pandas raise whatever they like
            warnings.warn(f"{files.path_of(file)} cannot be read ({error}); the result is computed again", stacklevel=2)
            found = None
        if found is None:
            found = make()
            try:
                files.write(file, partial(write_result, result=found, key=key))
            except (OSError, ValueError, StoreError) as error:
                why = error.strerror.lower() if isinstance(error, OSError) and error.strerror else error
                warnings.warn(f"the result is not saved in {self.folder}: {why}", stacklevel=2)
        return found


def describe(vectors: Vectors) -> dict[str, Any]:
    """Return what identifies vectors of a run's layer: JSON, with digests of what is long.

    The activations themselves are known by what the commits of their snapshots vouch for, and are not read.
    """
    source, drawn = _whole(vectors), unkept(vectors.source)
    assert isinstance(source, Layer)
    return {
        "layer": vectors.layer,
        "view": vectors.view,
        "shape": list(vectors.shape),
        "snapshots": source.snapshots.set_index("snapshot").loc[list(vectors.snapshots)].reset_index().to_dict("list"),
        "committed": source.identity(vectors.snapshots),
        "samples": _digest(vectors.samples),
        "left_out": _digest(vectors.left_out),
        "drawn": None if vectors.drawn is None else _digest(vectors.drawn),
        "positions": [drawn.count, drawn.random_state] if isinstance(drawn, DrawnPositions) else None,
        "scaling": vectors.scaling,
        "versions": _versions(),
    }


def _whole(vectors: Vectors) -> Source:
    """Return what vectors are of, whether or not positions of it were drawn."""
    source = unkept(vectors.source)
    return source.source if isinstance(source, DrawnPositions) else source


@cache
def _versions() -> dict[str, str]:
    """Return the versions of what computes, which are looked up on the disk."""
    return {name: version(name) for name in _VERSIONS}


def _digest(values: npt.NDArray[Any]) -> str:
    return sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _load(
    files: ResultFiles, name: str, *, kind: type[Result], key: Mapping[str, Any], vectors: Sequence[Vectors]
) -> Result | None:
    """Return a result; None where there is none. Raises whatever it likes of a file that is damaged."""
    try:
        file = files.find(name)
    except Unreachable:  # it may be that nothing lies there, which who may not list a bucket is not told
        return None
    found = None if file is None else read_result(file, kind, key=key)
    if found is not None:
        check_result(found, vectors)
    return found
