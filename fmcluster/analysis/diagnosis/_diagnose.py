"""Diagnosis of a run: dead, duplicate, drifting, converged, layer by layer; and the advice that follows."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from functools import partial
from math import prod
from operator import attrgetter

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...store import Layer, NotFinite, Run
from ...vectors import prepare_to_copy
from .._damage import Damage
from .._parallel import in_one_thread, is_cluster, keep_each, own_threads, run_each
from .._results import MAX_BYTES, Array
from .._validation import require
from ..representation import COMPARED, Similarity, all_pairs, all_pairs_on_cluster
from ._advice import advise
from ._findings import Findings
from ._from_damage import advise_from_damage, has_rewinds
from ._from_rates import advise_freezing
from ._judge import Judged, channel_table, judge, layer_table, measure_table
from ._measures import LayerEvidence, draw_samples, examine_layer
from ._modules import activated_by, next_layers
from ._rate_of_change import Change, change_to_end, changes_at_rest, check_steps, part_at_rest
from ._thresholds import Thresholds
from ._where_to_tune import advise_tuning

_BYTES_OF_A_WORKER = 1 << 29  # with less, products of wide layers are taken in more passes


def diagnose(
    run: Run,
    *,
    layers: Sequence[str] | None = None,
    snapshots: Sequence[int] | None = None,
    samples: Sequence[int] | npt.NDArray[np.int64] | None = None,
    thresholds: Thresholds | None = None,
    damage: Damage | None = None,
    clean: Run | None = None,
    at_rest: Run | None = None,
    steps_left: int = 0,
    max_bytes: int = MAX_BYTES,
    random_state: int = 0,
    executor: Executor | None = None,
) -> Findings:
    """Find dead, duplicate, noise and permuted channels and unchanged layers, and advise what to do.

    A layer is read once (channels and samples each by themselves, in parts, where that exceeds the budget). What
    compares samples takes 2,000 at most, drawn once, or as many as the products of all layers and snapshots leave room
    for. CKA, the accuracy of neighbors and what is dead are of all positions. What else channels do (duplicates,
    drift, ranks, noise, permutations) is measured at all positions of up to 131,072 of all images; of more, at 32,768,
    drawn at random with `random_state`, others of each image: ``layers`` of the findings has both numbers. A
    correlation r is then off by ``(1 - r**2) / sqrt(32768)``, its standard error, 0.0055 at most.

    Feature maps say which channels are dead, duplicate, noise or permuted, and which layers did not change; of a layer
    whose inputs moved, recorded weights say that (``record=("activation", "weight")``). Feature maps do not say what
    may be frozen or left out: on a network that was not trained, layers look as converged as on one that was, and what
    changed most is not what needed the change. That is advised from measured `damage`; freezing also from how fast a
    layer still moves, beyond what it does `at_rest`.

    What no change looks like is measured, too: the **noise floor** of a layer is the mean debiased CKA between two
    random halves of its own channels at the last snapshot. A layer is said to have converged at the first snapshot
    after which its CKA to the last stays at or above ``thresholds.cka`` and above that noise floor; where the last
    snapshot alone reaches that, it has not.

    Parameters
    ----------
    run : Run
        Made by `open_run`.
    layers : sequence of str, optional
        Names of layers; by default all, but for those that are finite at no snapshot.
    snapshots : sequence of int, optional
        Numbers of the snapshots, in order; by default all at which every one of the layers gave finite values. Where
        there would be none, layers and samples are left out, too, as `Run.finite_part` says; `Findings.not_finite`
        names all that is.
    samples : sequence of int, optional
        Dataset indices; by default all that every one of the snapshots holds, but for those left out.
    thresholds : Thresholds, optional
        What counts as what; by default ``Thresholds()``.
    damage : Damage, optional
        What `ablate` measured of the network as it is at the last snapshot: with `Rewind`, advice on freezing; with the
        others, on depth, width, kernels and resolution.
    clean : Run, optional
        A run of the network from before the fine-tuning on data as it knows them, recorded with weights, as `run` has
        to be: with it, advice on where to tune, where inputs of normalizations shifted.
    at_rest : Run, optional
        The same training of the same network at learning rate 0, recorded with the same probe: what a layer moves where
        nothing is learned, as its normalizations go on following the images. What of it is not finite is left out, and
        named in `Findings.not_finite_at_rest`. With it, where `damage` holds no `Rewind`,
        freezing is advised of layers that would move no further than ``1 - thresholds.cka`` beyond that to the end.
    steps_left : int
        How many optimizer steps follow the last snapshot.
    max_bytes : int
        Memory that may be taken above what is in use; of each worker, where there is an executor.
    random_state : int
        Seed of the halves, of the permuted labels, and of the samples and positions drawn.
    executor : concurrent.futures.Executor, optional
        Where layers are examined; by default in threads, one for a core as far as memory goes.

    Returns
    -------
    Findings
        The measures, the channels, the layers, and the advice; ``print(findings)`` shows the advice.

    Raises
    ------
    TypeError
        For what is not a run, or a string for `layers`.
    KeyError
        For a layer that the run does not have.
    ValueError
        For snapshots or samples that do not exist, fewer than 4 samples, or activations that are not finite at all
        snapshots, or at one that was asked for; with `at_rest`, where snapshots hold no steps, or it lacks layers or
        samples.
    MemoryError
        Where a layer's channels have too many products for `max_bytes`.

    References
    ----------
    S. Kornblith, M. Norouzi, H. Lee, G. Hinton, Similarity of neural network representations revisited, ICML 2019;
    T. Nguyen, M. Raghu, S. Kornblith, Do wide and deep networks learn the same things?, ICLR 2021 (the debiased CKA);
    O. Roy, M. Vetterli, The effective rank, EUSIPCO 2007.
    """
    require(run, Run, verb="diagnose", made_by="open_run(path)")
    thresholds = Thresholds() if thresholds is None else thresholds
    require(thresholds, Thresholds, verb="diagnose", made_by="Thresholds(...)")
    if damage is not None:
        require(damage, Damage, verb="diagnose", made_by="ablate(model, probe)")
    for beside in (at_rest, clean):
        if beside is not None:
            require(beside, Run, verb="diagnose", made_by="open_run(path)")
    if isinstance(steps_left, bool) or not isinstance(steps_left, int) or steps_left < 0:
        raise ValueError(f"steps_left is {steps_left!r}; expected how many optimizer steps follow the last snapshot")
    names = chosen_layers(run, layers)
    not_finite = not_finite_at_rest = NotFinite()
    if at_rest is not None:  # of all snapshots, as rates may be there where those that are finite have none
        numbers = run.snapshots["snapshot"].tolist() if snapshots is None else list(snapshots)
        check_steps(run.snapshots.set_index("snapshot")["step"].reindex(numbers).to_numpy(np.float64))
    if snapshots is None:
        part = run.finite_part(layers=None if layers is None else names)
        names, snapshots, not_finite = part.layers, part.snapshots, part.left_out
        samples = part.samples if samples is None else samples
    first = run[names[0]].vectors("sample", snapshots=snapshots, samples=samples)
    if len(first.samples) < 4:
        raise ValueError(f"diagnose received {len(first.samples)} samples; debiased CKA needs at least 4")
    numbers = list(first.snapshots)
    compared_images = first.samples
    if at_rest is not None:
        resting = part_at_rest(at_rest, names)
        not_finite_at_rest = resting.left_out
        compared_images = np.setdiff1d(compared_images, not_finite_at_rest.samples)
    n_items = len(names) * len(numbers)
    drawn = draw_samples(compared_images, n_items=n_items, max_bytes=max_bytes, random_state=random_state)
    n_workers = 1 if executor else max(1, min(os.cpu_count() or 1, max_bytes // _BYTES_OF_A_WORKER))
    examine = partial(
        examine_layer,
        snapshots=numbers,
        samples=first.samples,
        drawn=drawn,
        thresholds=thresholds,
        with_errors=at_rest is not None,
        max_bytes=max_bytes // n_workers,
        random_state=random_state,
    )
    # before there are workers, each of which tells what is loaded how many threads it may take
    prepare_to_copy(len(numbers) * len(first.samples) * sum(prod(run[name].feature_map_shape) for name in names))
    with own_threads(executor, most=n_workers) as workers, nullcontext() if workers else in_one_thread():
        evidence, pairs = _examine_all(examine, [run[name] for name in names], executor=workers)
    cka = pairs.reshape(len(names), len(numbers), len(names), len(numbers))
    following = next_layers(run, names)
    time = run.snapshots.set_index("snapshot").loc[numbers].reset_index()
    compared = pd.concat([time.assign(layer=name) for name in names], ignore_index=True)[list(COMPARED)]
    steps = time["step"].to_numpy(np.float64)
    rest: dict[str, Change] = {}
    rest_steps: Array | None = None
    if at_rest is not None:
        rest, rest_steps = changes_at_rest(
            at_rest, resting, samples=drawn, block_bytes=max_bytes // 8, random_state=random_state
        )
    judged: list[Judged] = []
    for ordinal, each in enumerate(evidence):
        other = following.get(each.name)
        to_next = None if other is None else np.diag(cka[ordinal, :, names.index(other)])
        to_last = cka[ordinal, :, ordinal, -1]
        judged.append(
            judge(
                run,
                each,
                cka_to_last=to_last,
                cka_to_next=to_next,
                following=other,
                to_end=change_to_end(
                    each.change, rest.get(each.name), steps=steps, rest_steps=rest_steps, steps_left=steps_left
                ),
                thresholds=thresholds,
            )
        )
    frame = measure_table(judged, time=time, thresholds=thresholds)
    rates = (
        ()
        if at_rest is None or has_rewinds(damage)
        else advise_freezing(
            judged, frame=frame, time=time, thresholds=thresholds, steps_left=steps_left, n_samples=len(drawn)
        )
    )
    return Findings(
        frame=frame,
        channels=channel_table(judged, time=time),
        layers=layer_table(judged, time=time),
        advice=(
            *(
                ()
                if damage is None
                else advise_from_damage(damage, thresholds, widths=_widths(run, judged, thresholds))
            ),
            *rates,
            *(
                ()
                if clean is None
                else advise_tuning(
                    run, judged, clean=clean, samples=drawn, frame=frame, time=time, thresholds=thresholds
                )
            ),
            *advise(run, judged, frame=frame, time=time, thresholds=thresholds),
        ),
        thresholds=thresholds,
        not_finite=not_finite,
        not_finite_at_rest=not_finite_at_rest,
        caveat="" if damage is None else damage.caveat,
        similarity=Similarity(
            values=pairs,
            rows=compared,
            columns=compared,
            metric="cka",
            debiased=True,
            n_samples=len(drawn),
            left_out=first.left_out,
            not_finite=(not_finite,),
        ),
    )


def _examine_all(
    examine: Callable[[Layer], LayerEvidence], layers: Sequence[Layer], *, executor: Executor | None
) -> tuple[list[LayerEvidence], Array]:
    """Return the evidence of each layer, and the debiased CKA of all pairs of layers and snapshots.

    On a Dask cluster the kernels, up to 8 MB of each layer and snapshot, stay on the workers that made them.
    """
    if executor is not None and is_cluster(executor):
        kept = keep_each(examine, layers, executor=executor)
        return kept.each(LayerEvidence.without_kernels), all_pairs_on_cluster(kept, attrgetter("kernels"))
    evidence = list(run_each(examine, layers, executor=executor))
    kernels = [kernel for each in evidence for kernel in each.kernels]
    return [each.without_kernels() for each in evidence], all_pairs(kernels, kernels)


def _widths(run: Run, judged: Sequence[Judged], thresholds: Thresholds) -> dict[str, str]:
    """Say of layers what was recorded of their activations: how many channels hold the energy."""
    by_name = {each.name: each for each in judged}
    out = {}
    for after, maker in activated_by(run, list(by_name)).items():
        channels = by_name[after].evidence.channels
        out[maker] = (
            f"after its activation ({after}), {channels.energy_width[-1]} of {channels.dead.shape[1]} channels hold "
            f"{thresholds.energy:.0%} of the energy of their correlations"
        )
    return out


def chosen_layers(run: Run, layers: Sequence[str] | None) -> list[str]:
    """Return names of layers, each once, in forward order."""
    if isinstance(layers, str):
        raise TypeError(f"layers is the string {layers!r}; expected a sequence of names: [{layers!r}]")
    wanted = run.layers if layers is None else [run[name].name for name in layers]
    if not wanted:
        raise ValueError("layers is empty; pass at least one, or None for all")
    return [name for name in run.layers if name in wanted]
