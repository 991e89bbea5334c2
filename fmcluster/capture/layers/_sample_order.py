"""Sample order: whether rows are those of the samples, by what becomes of them where others are shown.

As many rows as samples may be there by chance, as where each image gives some proposals and others none.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from ..forward import Firing
from ..inputs import ModelInputs
from ._first_output import FirstOutput
from ._folded_rows import at_other_samples
from ._repeats import differing

Rows = Mapping[Firing, torch.Tensor]

WHY_ASTRAY = (
    "its rows are not those of the samples: of some of these it returned more or fewer than of others, as where the "
    "images decide how many rows there are"
)
_MOST_PASSES = 32


def astray(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    *,
    inputs: ModelInputs,
    asked: Iterable[Firing],
    found: Mapping[Firing, FirstOutput],
    rows: Rows,
    values: Rows,
) -> list[Firing]:
    """Return the outputs whose rows do not belong to the samples one by one.

    Where the samples come in reverse, and so do the rows, they are theirs. Otherwise (rows may be masked at random, by
    where they are) they are counted, of the first sample, which gives as many as it should, together with others.

    Parameters
    ----------
    model, modules, inputs
        As for `discover`, which has seen that the first sample gives as many rows as the others do on average.
    asked : iterable of Firing
        The outputs that are asked about.
    found : mapping of Firing to FirstOutput
        What was noted of them.
    rows, values : mapping of Firing to Tensor
        Summaries of the rows of outputs with several for each sample; glimpses of the others.
    """
    asked, n = list(asked), len(inputs)
    axes = {firing: found[firing].samples_axis for firing in values if firing in found}
    turned = inputs.rows(torch.arange(n - 1, -1, -1))
    _, *again = at_other_samples(model, modules, inputs=turned, folded=rows.keys(), seen=axes)
    suspects = _not_in_reverse(asked, found=found, before=(rows, values), after=(again[0], again[1]))
    odd: list[Firing] = []
    for part in torch.arange(1, n).chunk(_MOST_PASSES) if suspects and n > 2 else ():
        with_first = inputs.rows(torch.cat([torch.zeros(1, dtype=torch.long), part]))
        counts, _, _ = at_other_samples(model, modules, inputs=with_first, folded=(), seen=axes)
        odd += [f for f in suspects if f in counts and counts[f] != _per_sample(found[f]) * (1 + len(part))]
    return [firing for firing in suspects if firing in odd]


def _per_sample(what: FirstOutput) -> int:
    return 1 if what.fold is None else what.fold.count


def _not_in_reverse(
    asked: Iterable[Firing],
    *,
    found: Mapping[Firing, FirstOutput],
    before: tuple[Rows, Rows],
    after: tuple[Rows, Rows],
) -> list[Firing]:
    """Return the outputs whose rows did not come in reverse order when the samples did; each with summaries, values."""
    one: dict[Firing, torch.Tensor] = {}
    other: dict[Firing, torch.Tensor] = {}
    for firing in asked:
        fold = found[firing].fold
        its, turned = (each[fold is None].get(firing) for each in (before, after))
        if its is None or turned is None:
            continue
        if fold is not None and len(turned) == len(its):
            its, turned = fold.of(its).flatten(0, 1), fold.of(turned).flip(0).flatten(0, 1)
        elif fold is None:
            turned = turned.flip(0)
        one[firing], other[firing] = its, turned
    different = differing(one, other)
    return [firing for firing in one if firing in different]
