"""Sample order: whether rows are those of the samples, by what becomes of them where these are shown in reverse.

As many rows as samples may be there by chance, as where each image gives some proposals and others none.
"""

from collections.abc import Iterable, Mapping

import torch

from ._first_output import FirstOutput
from ._hooks import Firing
from ._repeats import differing

Rows = Mapping[Firing, torch.Tensor]

WHY_ASTRAY = (
    "its rows are not those of the samples: with these in reverse order they did not come in reverse, as where the "
    "images decide how many rows there are"
)


def astray(
    doubtful: Iterable[Firing],
    *,
    found: Mapping[Firing, FirstOutput],
    rows: tuple[Rows, Rows],
    values: tuple[Rows, Rows],
) -> list[Firing]:
    """Return the outputs whose rows did not come in reverse order when the samples did.

    Parameters
    ----------
    doubtful : iterable of Firing
        The outputs that are asked about.
    found : mapping of Firing to FirstOutput
        How several rows belong to one sample.
    rows : (mapping of Firing to Tensor, mapping of Firing to Tensor)
        Summaries of the rows of outputs with several for each sample, with the samples in their order, and in reverse.
    values : (mapping of Firing to Tensor, mapping of Firing to Tensor)
        Glimpses of the other outputs. What was not seen in reverse is not judged.
    """
    one: dict[Firing, torch.Tensor] = {}
    other: dict[Firing, torch.Tensor] = {}
    for firing in doubtful:
        fold = found[firing].fold
        before, after = values if fold is None else rows
        if firing not in before or firing not in after:
            continue
        turned = after[firing]
        if fold is not None and len(turned) == len(before[firing]):
            turned = fold.of(turned).flip(0).flatten(0, 1)
            one[firing], other[firing] = fold.of(before[firing]).flatten(0, 1), turned
        else:
            one[firing], other[firing] = before[firing], turned.flip(0)
    different = differing(one, other)
    return [firing for firing in one if firing in different]
