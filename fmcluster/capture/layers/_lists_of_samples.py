"""Lists of samples: outputs that hold a tensor of each sample, as a detector's boxes, and no batch."""

import re
from collections.abc import Iterable

from ..forward import Firing

NO_BATCH = "it lies in a list with a tensor of each sample, which is no batch"

_NUMBER = re.compile(r"\[(\d+)\]")


def lists_with(n_entries: int, firings: Iterable[Firing]) -> dict[tuple[str, int, str], set[Firing]]:
    """Return the tensors in each list that has so many entries, by its module, its call, and which part it is.

    Examples
    --------
    >>> lists_with(2, [Firing("head", 0, "[0]"), Firing("head", 0, "[1]"), Firing("neck", 0, "[0]")]).keys()
    dict_keys([('head', 0, '')])
    """
    found: dict[tuple[str, int, str], dict[int, set[Firing]]] = {}
    for firing in firings:
        for number in _NUMBER.finditer(firing.part):
            entries = found.setdefault((firing.name, firing.call, firing.part[: number.start()]), {})
            entries.setdefault(int(number[1]), set()).add(firing)
    return {key: set().union(*each.values()) for key, each in found.items() if max(each) + 1 == n_entries}


def in_lists_of_samples(firings: Iterable[Firing], fewer: Iterable[Firing], *, n_samples: int) -> set[Firing]:
    """Return the tensors in lists that have an entry for each sample, of all of them and of one fewer."""
    shorter = lists_with(n_samples - 1, fewer)
    return {f for key, entries in lists_with(n_samples, firings).items() if key in shorter for f in entries}
