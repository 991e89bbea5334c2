"""Check of a saved result: that it is of the vectors it is used for, and holds numbers that can be."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..store import Layer
from ..vectors import Vectors
from ._results import NOISE, Clusters, Embedding, Rowwise, Scores

if TYPE_CHECKING:
    from ..store import NotFinite
    from ._top_images import TopImages
    from .diagnosis import Findings
    from .representation import Similarity
    from .tracking import NoiseFloor

_WORDS = "words"


def _schema(text: str) -> dict[str, str]:
    """Return the columns of a table, and the type of each."""
    return {name: kind for name, _, kind in (column.partition(":") for column in text.split())}


_TIME = _schema("snapshot:int64 epoch:int64 step:int64")
_MEASURES = _schema(
    "layer:words snapshot:int64 epoch:int64 step:int64 measure:words value:float64 threshold:float64 "
    "noise_floor:float64 null:float64 evidence:words"
)
_OF_CHANNELS = _schema(
    "layer:words snapshot:int64 channel:int64 dead:bool duplicate_group:Int64 drift:float64 drift_step:float64 "
    "converged:bool noise:bool permuted_from:Int64"
)
_OF_LAYERS = _schema(
    "layer:words module:words channels:int64 positions:int64 of_positions:int64 counts:bool noise_floor:float64 "
    "level:float64 converged:Int64 converged_epoch:Int64 separated:Int64 separated_epoch:Int64"
)
_LEFT_OUT = _schema("snapshot:int64 epoch:int64 step:int64 layers:int64 first:words")
_LAYERS_LEFT_OUT = _schema("layer:words snapshots:int64 of_snapshots:int64 channels:int64 of_channels:int64")
_TOP_IMAGES = _schema(
    "snapshot:int64 epoch:int64 step:int64 channel:int64 n_top_images:int64 nonfinite:int64 constant:bool tied:bool"
)
_OF_NOISE_FLOOR = _schema(
    "snapshot:int64 epoch:int64 step:int64 split:int64 n_rows:int64 churn:float64 ari:float64 ami:float64"
)
_MOST_OF_CKA = 1 + 1e-6


def check_result(result: object, vectors: Sequence[Vectors]) -> None:
    """See that a result is of vectors: their rows, layers, snapshots and samples, in arrays of the shapes they ask for.

    Whether its numbers are those that the vectors give is not known without computing them.

    Raises
    ------
    ValueError
        Where it is not.
    KeyError
        For a class that has no check here.
    """
    _CHECKS[type(result).__name__](result, vectors)


def _check_rows(result: Rowwise, vectors: Sequence[Vectors]) -> Vectors:
    (of,) = vectors
    _require((result.layer, result.view) == (of.layer, of.view), f"it is of {result.layer}, {result.view} view")
    _require(result.rows.equals(of.rows), "it has other rows")
    _require(result.fit in ("pooled", "each", "epoch"), f"fit is {result.fit!r}")
    epochs = [] if result.fit != "epoch" else of.rows["epoch"].unique().tolist()
    _require(result.fit_epoch in (epochs or [None]), f"fit_epoch is {result.fit_epoch}")
    return of


def _check_scores(result: Scores, vectors: Sequence[Vectors]) -> None:
    of = _check_rows(result, vectors)
    (n_components,) = result.singular_values.shape
    _require(1 <= n_components <= min(of.shape), f"it has {n_components} components")
    _shaped("values", result.values, (of.shape[0], n_components))
    _finite("values", result.values)
    _finite("singular_values", result.singular_values, least=0)
    _finite("total_variance and error", np.array([result.total_variance, result.error]), least=0)
    _require(result.n_features == of.n_features, f"it is of {result.n_features} features")
    _require(result.of_features is None or result.of_features > of.n_features, f"of {result.of_features} features")
    _require(result.method in ("gram", "covariance", "randomized"), f"method is {result.method!r}")
    _require(result.n_fitted is None or 1 <= result.n_fitted <= of.shape[0], f"n_fitted is {result.n_fitted}")
    if result.components is not None:
        _shaped("components", result.components, (n_components, *of.feature_shape))
        _finite("components", result.components)


def _check_embedding(result: Embedding, vectors: Sequence[Vectors]) -> None:
    of = _check_rows(result, vectors)
    _shaped("values", result.values, (of.shape[0], 2))
    _finite("values", result.values)
    said = result.faithfulness
    _require(1 <= said.n_neighbors < max(2, said.n_rows), f"n_neighbors is {said.n_neighbors}")
    _require(1 <= said.n_rows <= of.rows_per_snapshot, f"n_rows is {said.n_rows}")
    _between("a share", [said.neighbor_recall, said.neighbor_recall_chance, said.trustworthiness], 0, 1)
    _between("a correlation", [said.motion, said.motion_pooled], -1, 1)


def _check_clusters(result: Clusters, vectors: Sequence[Vectors]) -> None:
    of = _check_rows(result, vectors)
    _shaped("labels", result.labels, (of.shape[0],))
    _require((result.labels >= NOISE).all() and (result.labels < of.shape[0]).all(), "a label is no cluster's")
    _require(result.n_asked is None or result.n_asked >= 1, f"n_asked is {result.n_asked}")


def _check_noise_floor(result: "NoiseFloor", vectors: Sequence[Vectors]) -> None:
    (of,) = vectors
    _require((result.layer, result.view) == (of.layer, of.view), f"it is of {result.layer}, {result.view} view")
    _require(result.rows_per_snapshot == of.rows_per_snapshot, f"it is of {result.rows_per_snapshot} rows")
    _columns(result.frame, _OF_NOISE_FLOOR)
    n_splits = len(result.frame) // len(of.snapshots)
    stamps = list(_time(of).itertuples(index=False, name=None)) * n_splits
    _require(n_splits >= 1 and _keys(result.frame, list(_TIME)) == stamps, "it is of other snapshots")
    _require(result.frame["n_rows"].between(0, of.rows_per_snapshot).all(), "it counts more rows than there are")
    _between("churn", result.frame["churn"], 0, 1)
    _between("an agreement", result.frame[["ari", "ami"]], -1, 1)


def _check_similarity(result: "Similarity", vectors: Sequence[Vectors]) -> None:
    _check_pairs(result, vectors)
    _require(result.n_samples == len(vectors[0].samples), f"it is of {result.n_samples} samples")


def _check_pairs(result: "Similarity", vectors: Sequence[Vectors]) -> None:
    expected = pd.concat([_time(each).assign(layer=each.layer) for each in vectors], ignore_index=True)
    for side in (result.rows, result.columns):
        _columns(side, {"layer": _WORDS, **_TIME})
        _require(all(side[name].tolist() == expected[name].tolist() for name in side), "it is of other snapshots")
    _shaped("values", result.values, (len(expected), len(expected)))
    _require(not np.isinf(result.values).any() and not (result.values > _MOST_OF_CKA).any(), "a value is over 1")
    _require(np.array_equal(result.left_out, vectors[0].left_out), "it leaves out other samples")
    _check_not_finite(*result.not_finite)


def _check_not_finite(*left_out: "NotFinite") -> None:
    for each in left_out:
        _columns(each.snapshots, _LEFT_OUT)
        _columns(each.layers, _LAYERS_LEFT_OUT)
        _require(each.samples.ndim == 1 and each.n_layers >= 0, "it leaves out what is none")


def _check_top_images(result: "TopImages", vectors: Sequence[Vectors]) -> None:
    (of,) = vectors
    channels, count = of.source.channels, len(of.snapshots)
    _require(result.layer == of.layer and result.n_samples == len(of.samples), f"it is of {result.layer}")
    _require(1 <= result.k <= len(of.samples), f"k is {result.k}")
    _require(result.snapshots.equals(_time(of)), "it is of other snapshots")
    _require(np.array_equal(result.left_out, of.left_out), "it leaves out other samples")
    shape = (count, len(channels), result.k)
    for name, axes in (("samples", ()), ("values", ()), ("positions", (2,)), ("fractions", (2,))):
        _shaped(name, getattr(result, name), (*shape, *axes))
    held, limits = result.samples != -1, np.array(of.source.feature_map_shape[1:])
    _require(np.isin(result.samples[held], of.samples).all(), "an image is none of the samples")
    _require((np.isfinite(result.values) == held).all(), "an image has no value")
    _require(
        bool((result.positions[~held] == -1).all() and np.isnan(result.fractions[~held]).all()), "no image has one"
    )
    _require(((result.positions[held] >= 0) & (result.positions[held] < limits)).all(), "a position is outside")
    _between("a fraction", result.fractions, 0, 1)
    table = result.channels
    _columns(table, _TOP_IMAGES)
    time = _time(of)
    named = time.loc[time.index.repeat(len(channels))].assign(channel=np.tile(channels, count))
    _require(all(table[name].tolist() == named[name].tolist() for name in named), "it is of other channels")
    _require(np.array_equal(table["n_top_images"], held.sum(axis=2).ravel()), "it counts other images than it holds")
    _require(table["nonfinite"].between(0, len(of.samples)).all(), "more images than there are hold NaN")


def _check_findings(result: "Findings", vectors: Sequence[Vectors]) -> None:
    time, layers = _time(vectors[0]), [each.layer for each in vectors]
    stamps = list(time.itertuples(index=False, name=None))
    _columns(result.frame, _MEASURES)
    measures = result.frame["measure"].unique().tolist()
    _require(len(measures) * len(stamps) * len(layers) == len(result.frame) > 0, "it lacks measures")
    keys = [(layer, *stamp, measure) for layer in layers for stamp in stamps for measure in measures]
    _require(_keys(result.frame, ["layer", *_TIME, "measure"]) == keys, "it is of other layers or snapshots")
    _columns(result.channels, _OF_CHANNELS)
    channels = {each.layer: each.source.channels.tolist() for each in vectors}
    keys = [(layer, stamp[0], channel) for layer in layers for stamp in stamps for channel in channels[layer]]
    _require(_keys(result.channels, ["layer", "snapshot", "channel"]) == keys, "it is of other channels")
    for name in ("duplicate_group", "permuted_from"):
        named = result.channels.dropna(subset=[name])
        _require(all(k in channels[layer] for layer, k in _keys(named, ["layer", name])), f"{name} is no channel")
    _columns(result.layers, _OF_LAYERS)
    modules = [each.source.module for each in vectors if isinstance(each.source, Layer)]
    keys = list(zip(layers, modules, map(len, channels.values()), strict=True))
    _require(_keys(result.layers, ["layer", "module", "channels"]) == keys, "it is of other layers")
    for name in ("converged", "separated"):
        for column, known in ((name, time["snapshot"]), (f"{name}_epoch", time["epoch"])):
            _require(result.layers[column].dropna().isin(known).all(), f"{column} is not in the run")
    _check_not_finite(result.not_finite, result.not_finite_at_rest)
    if result.similarity is None:
        raise ValueError("it lacks the similarity of layers")
    _check_pairs(result.similarity, vectors)
    _require(4 <= result.similarity.n_samples <= len(vectors[0].samples), "it compares more samples than there are")
    for each in result.advice:
        _require(each.layer in layers and each.action.isidentifier(), f"advice is on {each.layer}, {each.action}")
        _columns(each.evidence, _MEASURES)
        _require(each.epoch is None or each.epoch in time["epoch"].tolist(), f"advice is of epoch {each.epoch}")


_CHECKS: Mapping[str, Callable[[Any, Sequence[Vectors]], None]] = {  # by name: their modules are not loaded for it
    "Scores": _check_scores,
    "Embedding": _check_embedding,
    "Clusters": _check_clusters,
    "Similarity": _check_similarity,
    "NoiseFloor": _check_noise_floor,
    "TopImages": _check_top_images,
    "Findings": _check_findings,
}


def _time(vectors: Vectors) -> pd.DataFrame:
    """Return the snapshots of vectors: snapshot, epoch, step."""
    return vectors.source.snapshots.set_index("snapshot").loc[list(vectors.snapshots)].reset_index()


def _keys(frame: pd.DataFrame, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    return list(zip(*(frame[name].tolist() for name in columns), strict=True))


def _columns(frame: pd.DataFrame, expected: Mapping[str, str]) -> None:
    """See that a table has columns of these names and types; one without rows need not say what its words are."""
    found = {str(name): str(dtype) for name, dtype in frame.dtypes.items()}
    _require(list(found) == list(expected), f"a table has the columns {', '.join(found)}")
    for name, dtype in expected.items():
        fits = found[name] == dtype or (dtype == _WORDS and found[name] in ("object", "str", "string"))
        _require(fits or not len(frame), f"{name} is of {found[name]}")
        _require(dtype != "float64" or not np.isinf(frame[name].to_numpy(np.float64)).any(), f"{name} is infinite")


def _shaped(name: str, values: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
    _require(values.shape == shape, f"{name} is of shape {values.shape}, not {shape}")


def _finite(name: str, values: npt.NDArray[np.floating], *, least: float = -np.inf) -> None:
    _require(np.isfinite(values).all() and (values >= least).all(), f"{name} holds what cannot be")


def _between(name: str, values: npt.ArrayLike, least: float, most: float) -> None:
    """See that numbers, those that are not known left out, lie between two, but for rounding."""
    known = np.asarray(values)[~np.isnan(np.asarray(values))]
    _require(((known >= least - 1e-9) & (known <= most + 1e-9)).all(), f"{name} is not from {least} to {most}")


def _require(fits: bool | np.bool_, otherwise: str) -> None:
    if not fits:
        raise ValueError(otherwise)
