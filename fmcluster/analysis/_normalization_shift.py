"""Shift of normalizations' inputs: how far new data are from those of which a network learned its statistics."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..store import Run
from ._validation import require

_COLUMNS = ["layer", "n_channels", "shift", "clean_shift", "ratio"]


def normalization_shift(
    run: Run, *, clean: Run | None = None, epoch: int | None = None, snapshot: int | None = None
) -> pd.DataFrame:
    """Compare what each BatchNorm was given with its running statistics, and with what it is given of clean data.

    A part of the network whose inputs shift most, against data as the network knows them, is where tuning may help:
    changes of the input such as blur or noise shift early layers, permuted labels none. Beat two baselines before that
    is believed: re-estimating the statistics alone, and tuning the head alone.

    Parameters
    ----------
    run : Run
        A run with weights, recorded on the new data.
    clean : Run, optional
        A run of the same network, recorded on data as it knows them; its last snapshot is taken.
    epoch, snapshot : int, optional
        Which snapshot of `run`: the last of an epoch, or one by its number; by default the first, from before any
        training.

    Returns
    -------
    DataFrame
        One row per BatchNorm, in the model's order: ``layer``, ``n_channels``, ``shift`` (mean over channels of the
        Kullback-Leibler divergence of a normal distribution with the running mean and variance from one with those of
        the inputs, in nats), ``clean_shift`` (the same of the clean data), ``ratio`` (of the two); NaN without `clean`,
        and where a module was not called. There is no interval: the run holds sums over the probe, not over each image.

    Raises
    ------
    TypeError
        For what is not a run.
    ValueError
        Where a run holds no inputs of normalizations, no such snapshot, or `clean` is of another network.

    References
    ----------
    Y. Lee et al., Surgical fine-tuning improves adaptation to distribution shifts, ICLR 2023 (which part to tune
    depends on the shift); S. Schneider et al., Improving robustness against common corruptions by covariate shift
    adaptation, NeurIPS 2020 (statistics alone).
    """
    require(run, Run, verb="normalization_shift", made_by="open_run(path)")
    number = 0 if epoch is None and snapshot is None else run.resolve(epoch=epoch, snapshot=snapshot)
    shifts = _shifts(run, number)
    clean_shifts = {}
    if clean is not None:
        require(clean, Run, verb="normalization_shift", made_by="open_run(path)")
        clean_shifts = _shifts(clean, len(clean) - 1)
        if missing := [name for name in shifts if name not in clean_shifts]:
            raise ValueError(
                f"{clean.path} holds no inputs of a normalization {missing[0]!r}, and {run.path} does; expected runs "
                f"of one network"
            )
    rows = []
    for name, values in shifts.items():
        here, there = values.mean(), clean_shifts[name].mean() if name in clean_shifts else np.nan
        rows.append((name, len(values), here, there, here / there if there > 0 else np.nan))
    return pd.DataFrame(rows, columns=_COLUMNS)


def _shifts(run: Run, snapshot: int) -> dict[str, npt.NDArray[np.float64]]:
    """Return the divergence of each channel, by normalization."""
    if not run.normalization_names:
        raise ValueError(
            f"{run.path} holds no inputs of BatchNorms with running statistics; record a network that has some, with "
            f'Recorder(..., record=("activation", "weight"))'
        )
    found = {}
    for name in run.normalization_names:
        keys = [f"{name}.running_mean", f"{name}.running_var"]
        if not set(keys) <= set(run.weight_names):  # it does not keep any
            continue
        learned = run.read_weights(snapshot=snapshot, names=keys)
        mean, variance = (learned[key].astype(np.float64) for key in keys)
        frame = run.normalization_inputs(name)
        given = frame[frame["snapshot"] == snapshot]
        first, second = given["mean"].to_numpy(), given["variance"].to_numpy()
        found[name] = gaussian_divergence(first, second, mean=mean, variance=variance)
    return found


def gaussian_divergence(
    given_mean: npt.NDArray[np.float64],
    given_variance: npt.NDArray[np.float64],
    *,
    mean: npt.NDArray[np.float64],
    variance: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Return the Kullback-Leibler divergence of normal distributions from given ones, in nats.

    Variances have a millionth of the largest added, so that channels that are constant have one.

    Examples
    --------
    >>> gaussian_divergence(np.array([0.0, 1.0]), np.ones(2), mean=np.zeros(2), variance=np.ones(2)).round(3).tolist()
    [0.0, 0.5]
    """
    least = 1e-6 * max(float(np.nanmax(variance, initial=0)), float(np.nanmax(given_variance, initial=0)), 1e-30)
    first, second = given_variance + least, variance + least
    return np.asarray((np.log(second / first) + (first + np.square(given_mean - mean)) / second - 1) / 2)
