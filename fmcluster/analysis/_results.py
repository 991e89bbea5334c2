"""Results of the analysis: frozen values, each with a tidy `frame`.

`rows` labels the rows of a result, snapshot by snapshot: columns `snapshot`, `epoch`, `step` (and `run`, of what
`compare` made), then what identifies a row in its view (`channel`; `sample, channel`; `sample`; or `sample, y, x`).
Every snapshot holds the same rows in the same order, so an array of `n_rows` values reshapes to
`(n_snapshots, n_rows / n_snapshots)`.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..store import last_of_epoch
from ._summarized import Summarized

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

Fit = Literal["pooled", "each"]

TIME_COLUMNS = ("snapshot", "epoch", "step", "run")
NOISE = -1  # the label of a row that is in no cluster
MAX_BYTES = 1 << 30  # memory that a verb may take by default
N_INIT = 4  # starts of the k-means that the analysis runs by default


def snapshot_of_epoch(rows: pd.DataFrame, epoch: int, *, argument: str = "fit_epoch") -> int:
    """Return the number of an epoch's last snapshot.

    Parameters
    ----------
    rows : DataFrame
        With columns ``snapshot`` and ``epoch``, in the order of snapshots.
    epoch : int
        The epoch.
    argument : str
        The argument that named the epoch, for the error.

    Raises
    ------
    ValueError
        Where no snapshot is of this epoch.
    """
    last = last_of_epoch(rows["epoch"], epoch)
    if last is None:
        epochs = ", ".join(str(number) for number in rows["epoch"].unique())
        raise ValueError(f"{argument} is {epoch!r}; expected one of the epochs {epochs}")
    return int(rows["snapshot"].iloc[last])


@dataclass(frozen=True, eq=False, repr=False)
class Rowwise(Summarized):
    """One value, or one small vector, for every row of a view.

    Attributes
    ----------
    rows : DataFrame of n_rows rows
        The labels of the rows, snapshot by snapshot.
    layer, view : str
        Where the rows come from.
    fit : {"pooled", "each", "epoch"}
        What the result was fitted on: all snapshots at once, each snapshot by itself, or one epoch's last snapshot.
    fit_epoch : int or None
        The epoch, where the result was fitted on one.
    """

    rows: pd.DataFrame
    layer: str
    view: str
    fit: str
    fit_epoch: int | None = field(default=None, kw_only=True)

    @property
    def n_snapshots(self) -> int:
        """Number of snapshots."""
        return int(self.rows["snapshot"].nunique())

    @property
    def identity(self) -> list[str]:
        """The columns of `rows` that name a row within a snapshot."""
        return [column for column in self.rows.columns if column not in TIME_COLUMNS]

    def of_run(self, run: int) -> Self:
        """Return what a result of several runs, such as one of `compare`'s scores, says of one.

        Parameters
        ----------
        run : int
            The run's number, from 0. Its snapshots keep their order, and are numbered from 0.

        Raises
        ------
        ValueError
            For the result of one run, or a run that there is not.
        """
        runs = self.rows["run"].unique().tolist() if "run" in self.rows else []
        if run not in runs:
            raise ValueError(f"run is {run!r}; expected one of {runs}" if runs else "this is the result of one run")
        mine = (self.rows["run"] == run).to_numpy()
        rows = self.rows[mine].drop(columns="run").reset_index(drop=True)
        rows["snapshot"] -= rows["snapshot"].iloc[0]
        changed = {name: getattr(self, name)[mine] for name in ("values", "labels") if hasattr(self, name)}
        if isinstance(self, Scores):
            changed["n_fitted"] = self.n_fitted or len(self.rows)
        return replace(self, rows=rows, **changed)

    def check_same_rows(self, other: "Rowwise") -> None:
        """Raise `ValueError` where this result is not of the rows of another, in the same order.

        Parameters
        ----------
        other : Scores, Embedding or Clusters
            What this result is to be used with.
        """
        same = (self.layer, self.view) == (other.layer, other.view)
        if not same or not self.rows.reset_index(drop=True).equals(other.rows.reset_index(drop=True)):
            raise ValueError(
                f"received {type(self).__name__.lower()} of {len(self.rows)} rows of {self.layer!r}, {self.view} view; "
                f"expected the {len(other.rows)} rows of {other.layer!r}, {other.view} view, in the same order: make "
                f"both from the same scores"
            )

    def by_snapshot(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Reshape `values` of shape (n_rows, ...) to (n_snapshots, rows per snapshot, ...)."""
        return values.reshape(self.n_snapshots, -1, *values.shape[1:])


@dataclass(frozen=True, eq=False, repr=False)
class Scores(Rowwise):
    """Principal component scores of the rows of a view.

    Attributes
    ----------
    values : ndarray of shape (n_rows, n_components), float64
        The scores, in the units of the activations.
    singular_values : ndarray of shape (n_components,)
        Singular values of the centered matrix of the rows that were fitted, largest first.
    total_variance : float
        Sum of the variances of all features over those rows.
    n_features : int
        Length of the rows that were reduced.
    of_features : int or None
        Length of the whole rows, where those were reduced to positions that were drawn; None: they were not.
    method : str
        ``"gram"`` or ``"covariance"``: which side of the matrix was accumulated. ``"randomized"``: neither.
    n_fitted : int or None
        How many rows were fitted; None: all.
    error : float
        Of a randomized basis: so near to the variance along each component there is one of the vectors, as a share of
        the largest. 0 where the method is exact.
    components : ndarray or None
        On request, the components: float32 of shape (n_components, ...), the rest as the view's features (for the
        `feature_map` view, height and width).
    """

    values: Array
    singular_values: Array
    total_variance: float
    n_features: int
    method: str
    n_fitted: int | None = None
    error: float = 0.0
    of_features: int | None = None
    components: npt.NDArray[np.float32] | None = None

    @property
    def explained_variance(self) -> Array:
        """Variance along each component, ndarray of shape (n_components,)."""
        return self.singular_values**2 / max((self.n_fitted or len(self.rows)) - 1, 1)

    @property
    def explained_variance_ratio(self) -> Array:
        """Share of the total variance along each component, ndarray of shape (n_components,)."""
        if self.total_variance == 0:
            return np.zeros_like(self.singular_values)
        return self.explained_variance / self.total_variance

    @cached_property
    def frame(self) -> pd.DataFrame:
        """`rows` with a column ``pc0``, ``pc1``, ... for each component."""
        columns = [f"pc{i}" for i in range(self.values.shape[1])]
        return pd.concat([self.rows, pd.DataFrame(self.values, columns=columns)], axis=1)


@dataclass(frozen=True)
class Faithfulness:
    """How far an embedding can be trusted, in space and in motion.

    Attributes
    ----------
    neighbor_recall : float
        In space: the share, from 0 to 1, of a row's `n_neighbors` nearest rows within its snapshot that are among
        its `n_neighbors` nearest in the embedding; mean over rows and snapshots.
    neighbor_recall_chance : float
        The neighbor recall of positions drawn at random.
    n_neighbors : int
        15, or fewer where a snapshot has fewer rows.
    n_rows : int
        Rows of each snapshot that were compared: all, or 2,000 drawn at random.
    trustworthiness : float
        Venna and Kaski's trustworthiness, from 0 to 1; mean over snapshots.
    motion : float
        In motion: Spearman correlation, within each step from one snapshot to the next, between how far rows move in
        the plane and how far their vectors moved; mean over steps, NaN where there is none.
    motion_pooled : float
        The same correlation over the rows of all steps at once.
    """

    neighbor_recall: float
    neighbor_recall_chance: float
    n_neighbors: int
    n_rows: int
    trustworthiness: float
    motion: float
    motion_pooled: float

    def __str__(self) -> str:
        motion = "not available (one snapshot)" if np.isnan(self.motion) else f"{self.motion:.2f}"
        return f"neighbor recall {self.neighbor_recall:.2f} (chance {self.neighbor_recall_chance:.2f}), motion {motion}"


@dataclass(frozen=True, eq=False, repr=False)
class Embedding(Rowwise):
    """Positions of the rows of a view in the plane.

    Attributes
    ----------
    values : ndarray of shape (n_rows, 2), float64
        Positions in the plane; they have no unit.
    method : str
        Name of the reducer.
    faithfulness : Faithfulness
        How far the embedding keeps neighbors and movements.
    """

    values: Array
    method: str
    faithfulness: Faithfulness

    @cached_property
    def frame(self) -> pd.DataFrame:
        """`rows` with columns ``x`` and ``y``; a `position` view's own x and y become `column` and `row`."""
        rows = self.rows.rename(columns={"x": "column", "y": "row"})
        return rows.assign(x=self.values[:, 0], y=self.values[:, 1])


@dataclass(frozen=True, eq=False, repr=False)
class Clusters(Rowwise):
    """A cluster for every row of a view.

    Attributes
    ----------
    labels : ndarray of shape (n_rows,), int64
        -1 is noise. Fitted on all snapshots at once, or on one epoch, they are the clusterer's own, and mean the same
        in each snapshot. Fitted on each, they are renamed after the clusters of the snapshot before that share most
        members, and a name does not mean more than that.
    method : str
        Name of the clusterer.
    n_asked : int or None
        How many clusters it was asked for; None for one that finds out.
    """

    labels: Labels
    method: str
    n_asked: int | None = None

    @property
    def n_clusters(self) -> int:
        """Number of clusters, noise not counted."""
        return len(self.names)

    @property
    def names(self) -> list[int]:
        """The labels that occur, noise left out, in order."""
        return [int(label) for label in np.unique(self.labels) if label != NOISE]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """`rows` with a column ``cluster``."""
        return self.rows.assign(cluster=self.labels)


@dataclass(frozen=True, eq=False, repr=False)
class History(Summarized):
    """Who stays in its cluster and who moves, from each snapshot to the next.

    Attributes
    ----------
    clusters : Clusters
        What was tracked.
    frame : DataFrame
        One row per row of the view and step: ``from_snapshot, to_snapshot, from_epoch, to_epoch``, the row's identity,
        ``from_cluster, to_cluster, moved``. A row that is noise on either side has not moved.
    flow : DataFrame
        ``from_snapshot, to_snapshot, from_cluster, to_cluster, count``.
    steps : DataFrame
        ``from_snapshot, to_snapshot, from_epoch, to_epoch, n_rows`` (rows that are in a cluster on both sides),
        ``stayed`` (of these), ``churn`` (share that moved), ``ari`` and ``ami`` (adjusted Rand index and adjusted
        mutual information). Of each of the three, ``*_noise_floor``: between clusterings of the same rows with no
        change at all (NaN: not available), and ``*_noise_floor_limit``: the farthest that one halving of the probe
        went; ``*_null``: between labels with nothing in common, the mean over
        permutations; ``*_null_limit``: what one permutation in twenty goes beyond (less churn, more of the others).
    sizes : DataFrame
        Members of each cluster: one row per snapshot, one column per cluster (-1 for noise, where there is any).
    lives : DataFrame
        ``cluster``, ``born`` (first snapshot with a member), ``died`` (last snapshot with a member, missing where the
        cluster still has members in the last snapshot), ``began`` (``"first"`` for those of the first snapshot,
        ``"appear"``, ``"split"``, ``"merge"``), ``ended`` (``"vanish"``, ``"split"``, ``"merge"``; missing where
        ``died`` is). Of clusters of each snapshot a life is as long as the cluster survives; ``cluster`` is the name
        it was born with, and a name can have several lives.
    transitions : DataFrame
        What became of each cluster in each step: ``from_snapshot, to_snapshot, from_cluster, to_cluster`` (missing
        where a cluster vanishes or appears), ``transition`` (``"survive"``, ``"split"``, one line for each part,
        ``"merge"``, one line for each of those that were absorbed, ``"vanish"``, ``"appear"``) and ``overlap``: which
        share of the members went there; of a cluster that vanishes, the most that stayed together.
    rows : DataFrame
        The life of each row of the view: its identity, ``first_cluster, last_cluster, n_clusters`` (that it was in),
        ``n_moves``, ``n_noise`` (snapshots as noise), ``converged`` (the snapshot from which on it is in its last
        cluster; missing where it ends as noise).
    noise_floor : str or None
        What the noise floors were made from; None: not available.
    """

    clusters: Clusters
    frame: pd.DataFrame
    flow: pd.DataFrame
    steps: pd.DataFrame
    sizes: pd.DataFrame
    lives: pd.DataFrame
    transitions: pd.DataFrame = field(default_factory=pd.DataFrame)
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)
    noise_floor: str | None = None
