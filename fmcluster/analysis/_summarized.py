"""Summarized results: a line that says what a result holds, where a notebook would print all of its tables."""

from collections.abc import Mapping, Sized
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

_MOST_LETTERS = 60


class Summarized:
    """A dataclass that is shown by the names of its fields and how large each is; to be made with ``repr=False``.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(repr=False)
    ... class Found(Summarized):
    ...     layer: str
    ...     values: np.ndarray
    ...     frame: pd.DataFrame
    >>> Found("conv1", np.zeros((3, 50)), pd.DataFrame({"k": range(2000)}))
    Found(layer='conv1', values=<3 x 50>, frame=<2,000 rows>)
    """

    def __repr__(self) -> str:
        shown = (f"{each.name}={_in_short(getattr(self, each.name))}" for each in fields(self) if each.repr)  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(shown)})"


def _in_short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"<{' x '.join(f'{length:,}' for length in value.shape)}>"
    if isinstance(value, pd.DataFrame | pd.Series):
        return f"<{len(value):,} rows>"
    if isinstance(value, Summarized):
        return f"<{type(value).__name__}>"
    if isinstance(value, Mapping):
        names = ", ".join(map(str, value))
        return f"<{names if len(names) <= _MOST_LETTERS else f'{len(value):,} items'}>"
    text = repr(value)
    if len(text) <= _MOST_LETTERS and "\n" not in text:
        return text
    counted = isinstance(value, Sized) and not isinstance(value, str)
    return f"<{len(value):,} items>" if counted else f"<{type(value).__name__}>"
