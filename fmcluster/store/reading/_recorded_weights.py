"""Recorded weights: a run's parameters and buffers by snapshot, their norms, and the inputs of normalizations."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...errors import StoreError
from ..format import INPUTS, NORMS, StoredArray, WeightSpec, normalization_path, norms_path, weight_path
from ._load_weights import HasWeights, put_into


class RecordedWeights(ABC):
    """What a run holds of its model: weights here are all parameters and buffers.

    Attributes
    ----------
    path : str
        The run's folder or URL.
    weight_names : list of str
        Names of the parameters and buffers that are recorded, in the model's order; empty where none are.
    weights : DataFrame
        One row per snapshot and weight: ``snapshot``, ``epoch``, ``step``, ``name``, ``shape``, ``dtype`` (in the
        model), ``norm`` (Euclidean), ``gradient_norm`` (of ``.grad`` as it was when the snapshot was taken; NaN where
        there was none) and ``update_norm`` (of what changed since the snapshot before; NaN at the first).
    weight_specs : list of WeightSpec
        What they are: name, shape, dtype, kind, and names of their axes.
    normalization_names : list of str
        Names of the BatchNorms whose inputs are described.
    nbytes_weights : int
        Bytes of all weights, uncompressed.
    """

    path: str
    _attributes: dict[str, Any]

    @property
    @abstractmethod
    def snapshots(self) -> pd.DataFrame:
        """The snapshots' numbers, epochs and steps."""

    @abstractmethod
    def resolve(self, *, epoch: int | None = None, snapshot: int | None = None) -> int:
        """Return the number of the snapshot asked for."""

    @abstractmethod
    def stored(self, path: str) -> StoredArray:
        """Return one of the run's arrays."""

    @abstractmethod
    def group_attributes(self, path: str) -> dict[str, Any]:
        """Return the attributes of one of the run's groups."""

    @property
    def weight_names(self) -> list[str]:
        """Names of the parameters and buffers that are recorded."""
        return list(self._attributes.get("weights", []))

    @cached_property
    def weight_specs(self) -> list[WeightSpec]:
        """What the parameters and buffers are."""
        return [self._spec(name) for name in self.weight_names]

    @property
    def normalization_names(self) -> list[str]:
        """Names of the BatchNorms whose inputs are described."""
        return list(self._attributes.get("normalizations", []))

    @property
    def nbytes_weights(self) -> int:
        """Bytes of all weights, uncompressed."""
        return len(self.snapshots) * sum(spec.nbytes for spec in self.weight_specs)

    @cached_property
    def weights(self) -> pd.DataFrame:
        """The norms of the weights, of their gradients and of their updates."""
        names = self._check_recorded()
        shapes = [spec.shape for spec in self.weight_specs]
        dtypes = [spec.dtype for spec in self.weight_specs]
        table = self.snapshots.loc[np.repeat(np.arange(len(self.snapshots)), len(names))].reset_index(drop=True)
        for column, values in (("name", names), ("shape", shapes), ("dtype", dtypes)):
            table[column] = pd.Series(values * len(self.snapshots), dtype=object)
        for norm in NORMS:
            table[norm] = self.stored(norms_path(norm)).read().ravel()
        return table

    def read_weights(
        self, *, epoch: int | None = None, snapshot: int | None = None, names: Sequence[str] | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the parameters and buffers of a snapshot, by name.

        Parameters
        ----------
        epoch, snapshot : int
            Which snapshot: the last of an epoch, or one by its number.
        names : sequence of str, optional
            Of the weights to read; all by default.

        Returns
        -------
        dict of str to ndarray
            As they were, bit for bit. NumPy has no bfloat16: such weights are float32, which holds them exactly.

        Raises
        ------
        ValueError
            Where the run holds no weights, or no such snapshot.
        KeyError
            Where it holds no weight of a name.
        StoreError
            Where a file is damaged.
        """
        known = self._check_recorded()
        number = self.resolve(epoch=epoch, snapshot=snapshot)
        if unknown := [name for name in names or () if name not in known]:
            raise KeyError(f"{self.path} holds no weight {unknown[0]!r}; {_among(known)}")
        return {name: np.asarray(self._value(name).read(number)) for name in (known if names is None else names)}

    def load_weights(self, model: HasWeights, *, epoch: int | None = None, snapshot: int | None = None) -> None:
        """Put the parameters and buffers of a snapshot into a model, bit for bit.

        The model keeps its device, its dtypes and its ``requires_grad``. Where a dtype is another than the recorded
        one, the values have to fit it exactly, as those of bfloat16 fit float32. Either all weights are put into the
        model, or none is changed.

        Parameters
        ----------
        model : Module
            With parameters and buffers of the same names and shapes, as they are, under ``torch.compile``,
            DistributedDataParallel or AveragedModel, or as the only such part of a larger model (``model.`` in a
            module of Lightning), of which the rest stays as it is.
        epoch, snapshot : int
            Which snapshot: the last of an epoch, or one by its number.

        Raises
        ------
        ValueError
            Where the run holds no weights or no such snapshot; where a name or shape differs, with the first that
            does; where a value does not fit the model's dtype.
        StoreError
            Where a file is damaged.
        """
        values = self.read_weights(epoch=epoch, snapshot=snapshot)
        put_into(model, values, dtypes={spec.name: spec.dtype for spec in self.weight_specs}, run=self.path)

    def normalization_inputs(self, layer: str) -> pd.DataFrame:
        """Return what a BatchNorm was given: mean and variance of each channel, over samples and positions.

        Of a probe run over the probe, of a live run over the epoch's batches. Beside them, `read_weights` has what the
        BatchNorm took them to be: ``<layer>.running_mean`` and ``<layer>.running_var``.

        Parameters
        ----------
        layer : str
            Name of the module in the model.

        Returns
        -------
        DataFrame
            One row per snapshot and channel: ``snapshot``, ``epoch``, ``step``, ``channel``, ``mean``, ``variance``
            (of the population). NaN where the module was not called.

        Raises
        ------
        KeyError
            Where the run holds none of such a module.
        """
        if layer not in self.normalization_names:
            raise KeyError(
                f"{self.path} holds no inputs of a normalization {layer!r}; {_among(self.normalization_names)}. They "
                f"are recorded beside the weights, with 'weight' in `record`"
            )
        read = {name: self.stored(f"{normalization_path(layer)}/{name}").read() for name in INPUTS}
        n_channels = read[INPUTS[0]].shape[1]
        table = self.snapshots.loc[np.repeat(np.arange(len(self.snapshots)), n_channels)].reset_index(drop=True)
        table["channel"] = np.tile(np.arange(n_channels), len(self.snapshots))
        return table.assign(**{name: values.ravel() for name, values in read.items()})

    def _check_recorded(self) -> list[str]:
        if not self.weight_names:
            raise ValueError(
                f'{self.path} holds no weights; record them with Recorder(..., record=("activation", "weight"))'
            )
        return self.weight_names

    def _value(self, name: str) -> StoredArray:
        return self.stored(f"{weight_path(name)}/value")

    def _spec(self, name: str) -> WeightSpec:
        array, about = self._value(name), self.group_attributes(weight_path(name))
        axes: tuple[str, ...] = tuple(array.array.metadata.dimension_names)[1:]  # type: ignore[union-attr, arg-type]
        try:
            spec = WeightSpec(name, array.shape[1:], about["dtype"], about["kind"], axes)
            fits = spec.stored_dtype == array.array.dtype.name
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"{self.path} is damaged: it does not say what the weight {name!r} is ({error})"
            ) from error
        if not fits:
            raise StoreError(f"{self.path} is damaged: the weight {name!r} is of {array.array.dtype}, not {spec.dtype}")
        return spec


def _among(names: Sequence[str]) -> str:
    """Say which names there are, for an error."""
    if not names:
        return "it holds none"
    return f"it holds {len(names)}: {', '.join(names[:8])}{' and so on' if len(names) > 8 else ''}"
