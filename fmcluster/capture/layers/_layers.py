"""Recorded layers: what each of the chosen modules returns, and how it is stored."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from ...errors import CaptureError
from ...store import LayerInput, LayerSpec, Quantity
from ..forward import Firing, hooked, is_batch
from ..inputs import ModelInputs, describe
from ..options import Keep, Reduction
from ._axis_tracker import Arrangement, AxisTracker, ChannelAxis, Fold
from ._first_output import FirstOutput, first_output
from ._folded_rows import at_other_samples, fold_of, rows_per_sample, summaries
from ._links import Links
from ._lists_of_samples import NO_BATCH, in_lists_of_samples
from ._repeats import as_at_first, differing, glimpse, shown_again
from ._sample_order import WHY_ASTRAY, astray
from ._samples_first import channels_behind_samples, fitting_axis, samples_first


@dataclass(frozen=True)
class PlannedLayer:
    """A layer that is recorded.

    Attributes
    ----------
    spec : LayerSpec
        How it is stored.
    output : tuple of int
        Shape of each row that it returns.
    reduction : Reduction
        What is kept of its activations.
    arrangement : Arrangement
        How its outputs are brought to the order in which they are stored.
    samples_axis : int
        Which axis of what it returns holds the samples.
    """

    spec: LayerSpec
    output: tuple[int, ...]
    reduction: Reduction
    arrangement: Arrangement
    samples_axis: int = 0

    def output_shape(self, n_samples: int) -> tuple[int, ...]:
        """Return the shape of what the module returns for so many samples, these first."""
        return (n_samples * self.spec.rows_folded, *self.output)

    def samples_first(self, output: torch.Tensor) -> torch.Tensor:
        """Return a view of what the module returned, or of its gradient, with the samples first.

        What has the shape of a row is of one sample, whose axis was lost, as by ``squeeze()``.
        """
        if self.spec.rows_folded == 1 and tuple(output.shape) == self.output:
            return output[None]
        return samples_first(output, self.samples_axis)

    def in_order(self, output: torch.Tensor) -> torch.Tensor:
        """Return an output, or its gradient, as it is reduced: floating-point, samples and channels where they belong.

        Its samples are first.
        """
        return self.arrangement.of(output.dequantize() if output.is_quantized else output)

    def reduction_of(self, quantity: Quantity) -> Reduction:
        """Return what is kept of a quantity, in the dtype that it is stored in: gradients in float32."""
        return replace(self.reduction, dtype=self.spec.dtype_of(quantity))


@dataclass(frozen=True)
class Discovery:
    """What is recorded of a model, and what is not.

    Attributes
    ----------
    layers : dict of Firing to PlannedLayer
        In forward order.
    left_out : dict of str to str
        Why what was asked for, by "children" or "leaves" or as a part of an output, is not recorded.
    varying : tuple of str
        Names of the layers that gave other values when the model was shown the same batch again, in forward order.
    """

    layers: dict[Firing, PlannedLayer]
    left_out: dict[str, str]
    varying: tuple[str, ...] = ()


def discover(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    *,
    inputs: ModelInputs,
    keep: Keep,
    optional: bool = False,
) -> Discovery:
    """Show the model a batch, and note what the modules return.

    Parameters
    ----------
    model : Module
        The model.
    modules : mapping of str to Module
        Those of its modules that are recorded.
    inputs : ModelInputs
        The batch.
    keep : Keep
        What is kept of the layers.
    optional : bool
        Whether modules that do not fire, or return no batch, are left out; else they are an error.

    Returns
    -------
    Discovery
        A module that fires several times is a layer per call (``name.call0``, ``name.call1``, ...), one that returns
        several tensors is a layer per tensor (``name[0]``, ``name[key]``); what else is in such an output is left out.
        A second look, at fewer samples, tells whose the rows are where a module returns several for each sample. Where
        the samples cannot be followed to an output, others, at the samples in reverse and at some of them, tell whether
        its rows are theirs; and where other samples' rows are not what they were, one at the same batch whether they
        are so there.

    Raises
    ------
    CaptureError
        Where a module did not fire, or returned something that is not a batch of vectors, tokens or feature maps.
    """
    n_rows = len(inputs)
    found: dict[Firing, FirstOutput] = {}
    left_out: dict[str, str] = {}
    folded: dict[Firing, torch.Tensor] = {}
    seen: dict[Firing, torch.Tensor] = {}
    guessed: dict[Firing, str] = {}
    fired: dict[Firing, None] = {}
    unexplained: set[Firing] = set()
    tracker = AxisTracker()
    links = Links()

    def note(firing: Firing, output: torch.Tensor, *, module: nn.Module) -> None:
        links.note(firing, output)
        fired[firing] = None
        samples_axis = tracker.samples_axis(output)
        if samples_axis is None:
            unexplained.add(firing)
        if samples_axis is None and (guess := fitting_axis(output, n_rows)):
            guessed[firing] = f"it returned {describe(output)} for a batch of {n_rows}"
            samples_axis = guess
        if not samples_axis and (several := rows_per_sample(output, n_rows)):
            found[firing] = replace(first_output(output, module=module, tracker=tracker), fold=Fold(several, True))
            folded[firing] = summaries(output)
        elif is_kept(
            firing,
            output,
            module=module,
            rows=n_rows,
            samples_axis=samples_axis,
            is_constant=n_rows == 1 and tracker.is_constant(output),
            optional=optional,
            left_out=left_out,
        ):
            what = found[firing] = first_output(output, module=module, tracker=tracker, samples_axis=samples_axis or 0)
            seen[firing] = glimpse(samples_first(output, what.samples_axis))

    with (
        as_at_first(model),
        tracker.watch(model),
        links.watch(modules),
        hooked(modules, note, optional=optional),
    ):
        inputs.show(model)
    fewer: dict[Firing, torch.Tensor] = {}
    if n_rows == 1 and guessed:
        twice = inputs.rows(torch.tensor([0, 0]))
        rows, _, _ = at_other_samples(
            model, modules, inputs=twice, folded=(), seen={f: found[f].samples_axis for f in guessed if f in found}
        )
        for firing in [f for f in found if f in guessed and rows.get(f) != 2]:
            _leave_out(firing, found, guessed[firing], optional=optional, left_out=left_out)
    if n_rows > 1:
        less = inputs.rows(slice(1, None))
        axes = {firing: found[firing].samples_axis for firing in seen}
        row_shapes = {firing: found[firing].shape for firing in seen}
        rows, again, fewer = at_other_samples(
            model, modules, inputs=less, folded=folded.keys(), seen=axes, row_shapes=row_shapes
        )
        of_samples = in_lists_of_samples(fired, rows, n_samples=n_rows)
        for firing in [f for f in fired if f in of_samples]:
            left_out[names_of(firing)[1]] = NO_BATCH
            found.pop(firing, None)
            folded.pop(firing, None)
        doubtful = guessed.keys() | rows.keys()
        for firing in [f for f in found if f not in folded and f in doubtful and rows.get(f) != n_rows - 1]:
            why = guessed.get(firing) or (
                f"its {n_rows} rows are not samples: of {n_rows - 1} samples it returned {rows[firing]}"
            )
            _leave_out(firing, found, why, optional=optional, left_out=left_out)
        for firing in folded:
            fold = fold_of(folded[firing], again.get(firing), n_samples=n_rows)
            if fold is not None:
                found[firing] = replace(found[firing], fold=fold)
                continue
            why = (
                f"it returned {len(folded[firing])} rows for {n_rows} samples, and which of them belong to which "
                f"sample cannot be told"
            )
            _leave_out(firing, found, why, optional=optional, left_out=left_out)
        if unclear := [firing for firing in found if firing in unexplained]:
            for firing in astray(model, modules, inputs=inputs, asked=unclear, found=found, rows=folded, values=seen):
                _leave_out(firing, found, WHY_ASTRAY, optional=optional, left_out=left_out)
    layers = plan(found, modules=modules, keep=keep, shown="the first batch", optional=optional, left_out=left_out)
    for firing, planned in layers.items():
        if (link := links.input_of(firing)) is not None and link.firing in layers:
            given = LayerInput(layers[link.firing].spec.name, relu=link.relu)
            layers[firing] = replace(planned, spec=replace(planned.spec, input=given))
    for stream in links.streams:
        inside = [firing for firing in layers if firing in stream]
        for firing in inside if len(inside) > 1 else ():
            spec = replace(layers[firing].spec, stream=layers[inside[0]].spec.name)
            layers[firing] = replace(layers[firing], spec=spec)
    before = {firing: values for firing, values in seen.items() if firing in layers}
    axes = {firing: layers[firing].samples_axis for firing in before}
    varying: tuple[str, ...] = ()
    without_first = {firing: values[1:] for firing, values in before.items()}
    if differing(without_first, {firing: fewer[firing] for firing in before if firing in fewer}):
        different = differing(before, shown_again(model, modules, inputs=inputs, layers=axes))
        varying = tuple(planned.spec.name for firing, planned in layers.items() if firing in different)
    return Discovery(layers, left_out, varying)


def _leave_out(
    firing: Firing, found: dict[Firing, FirstOutput], why: str, *, optional: bool, left_out: dict[str, str]
) -> None:
    """Take an output out of what was found, with the reason; raise where it is a module's own that was asked for."""
    what = found.pop(firing)
    if not (firing.part or optional):
        raise CaptureError(
            f"layer {firing.name!r} ({what.module}) cannot be recorded: {why}. Leave it out of `layers`."
        )
    left_out[names_of(firing)[1]] = why


def is_kept(
    firing: Firing,
    output: torch.Tensor,
    *,
    module: nn.Module,
    rows: int,
    samples_axis: int | None = None,
    is_constant: bool = False,
    is_either: bool = False,
    optional: bool = False,
    left_out: dict[str, str] | None = None,
) -> bool:
    """Whether an output is recorded; one of several tensors that is no batch is not, nor an optional one.

    What is constant is a table, with a row for each position, and no batch, even where it has as many rows. Nor is what
    has as many tokens as samples, where either may come first.

    Why it is not is put into `left_out`.

    Raises
    ------
    CaptureError
        Where a module's only tensor is no batch of `rows`.
    """
    is_table = is_constant and (optional or bool(firing.part))  # of what was asked for by name, nobody can tell
    along = samples_axis or 0
    is_state = isinstance(module, nn.RNNBase) and firing.part.startswith("[1]")
    is_either = is_either and rows > 1 and is_batch(output)
    if is_batch(output) and output.shape[along] == rows and not (is_state or is_table or is_either):
        return True
    returned = describe(output)
    several = f"a batch of {'one' if rows == 1 else rows}"
    if samples_axis:
        returned += f" (with the samples along axis {samples_axis})"
    if is_state:
        returned += ", its last state,"
    if is_either:
        returned += ", of which the samples may come first or the tokens,"
    if is_table and is_batch(output):
        returned += ", the same whatever the model is shown,"
    if firing.part or optional:
        if left_out is not None:
            left_out[names_of(firing)[1]] = f"it returned {returned} for {several}"
        return False
    raise CaptureError(
        f"layer {firing.name!r} ({type(module).__name__}) returned {returned} for {several}; expected floating-point "
        f"({rows}, channel), ({rows}, token, channel), ({rows}, channel, time), ({rows}, channel, height, width) or "
        f"({rows}, channel, frame, height, width). Leave it out of `layers`."
    )


def plan(
    seen: Mapping[Firing, FirstOutput],
    *,
    modules: Mapping[str, nn.Module],
    keep: Keep,
    shown: str,
    optional: bool = False,
    left_out: dict[str, str] | None = None,
) -> dict[Firing, PlannedLayer]:
    """Name the layers, and decide what is kept of each; what did not fire is put into `left_out`.

    Raises
    ------
    CaptureError
        Where a module did not fire.
    ValueError
        Where an option names a layer that there is not.
    """
    fired = {firing.name for firing in seen}
    silent = [name for name in modules if name not in fired]
    if silent and not (optional and fired):
        advice = "Pass layers='leaves', or names." if optional else "Leave it out of `layers`."
        named = silent if optional else silent[:1]
        reasons = [f"{part}: {why}" for part, why in (left_out or {}).items() if any(_is_of(part, n) for n in named)]
        if reasons:
            several = f"none of the {len(silent)} layers" if len(named) > 1 else f"layer {named[0]!r}"
            advice = "Choose others by `layers`." if optional else "Leave it out of `layers`."
            returned = "returned a batch" if len(named) > 1 else "returned no batch"
            raise CaptureError(f"{several} {returned} ({'; '.join(reasons[:3])}). {advice}")
        more = f" (nor did {', '.join(silent[1:4])}{' and others' if len(silent) > 4 else ''})" if silent[1:] else ""
        raise CaptureError(
            f"layer {silent[0]!r} did not fire when the model was shown {shown}{more}: the forward pass does not "
            f"go through the module's own call. {advice}"
        )
    if left_out is not None:
        said = [name for name in silent if any(_is_of(part, name) for part in left_out)]
        left_out |= {name: "it was not called, or returned no tensor" for name in silent if name not in said}
    often = {firing.name for firing in seen if firing.call > 0}
    keep.check_names(name for firing in seen for name in names_of(firing)[: 3 if firing.name in often else 2])
    planned = {}
    for firing, what in seen.items():
        planned[firing] = plan_layer(firing, what, keep=keep, name=names_of(firing)[2 if firing.name in often else 1])
    return planned


def _is_of(part: str, name: str) -> bool:
    return part == name or part.startswith(f"{name}[")


def plan_layer(firing: Firing, first: FirstOutput, *, keep: Keep, name: str) -> PlannedLayer:
    """Decide what is kept of a layer, and how it is stored."""
    n_axes = len(first.shape) + 1
    axis_asked = keep.axis_of(names_of(firing), n_axes=n_axes)
    axis = first.axis
    if axis_asked is not None:
        told = ChannelAxis(axis_asked, "option")
        axis = channels_behind_samples(told, n_axes=n_axes, samples_axis=first.samples_axis)
    arrangement = Arrangement(axis.axis, first.fold)
    is_time = arrangement.is_time(n_axes)
    shape = arrangement.shape(first.shape)
    reduction = keep.of(names_of(firing), shape, is_time=is_time)
    stored = reduction.stored_shape(shape)
    spec = LayerSpec(
        name,
        (stored[0], stored[2]) if is_time else stored,
        reduction.dtype,
        first.module,
        output=(shape[0], shape[2]) if is_time else shape,
        channels=reduction.channels,
        crop=reduction.crop,
        gradient=keep.gradient,
        returned=first.shape,
        returned_axis=axis.axis,
        axis_source=axis.source,
        is_time=is_time,
        rows_folded=1 if first.fold is None else first.fold.count,
        quantization=first.quantization,
        kernel=first.kernel,
    )
    return PlannedLayer(spec, first.shape, reduction, arrangement, first.samples_axis)


def names_of(firing: Firing) -> tuple[str, str, str]:
    """Return the names that a layer may go by: the module's, that of its tensor, and that of its call's tensor."""
    name, call, part = firing.name, firing.call, firing.part
    return name, f"{name}{part}", f"{name}.call{call}{part}"
