"""Numbers as text: with as many digits as tell them from what they are judged by."""

import math
from collections.abc import Sequence

FEWEST, MOST = 2, 5


def digits_that_tell(values: Sequence[float], *, apart_from: Sequence[float]) -> int:
    """Return how many decimals it takes for no value to look like what it is judged by, unless it is that.

    Parameters
    ----------
    values : sequence of float
        What is judged; NaN is left out.
    apart_from : sequence of float
        Thresholds, noise floors and nulls; NaN is left out.

    Returns
    -------
    int
        From 2 to 5.

    Examples
    --------
    >>> digits_that_tell([0.994, 0.31], apart_from=[0.987]), digits_that_tell([0.9941], apart_from=[0.9938])
    (3, 4)
    """
    pairs = [(a, b) for a in values for b in apart_from if math.isfinite(a) and math.isfinite(b) and a != b]
    for digits in range(FEWEST, MOST):
        if all(f"{a:.{digits}f}" != f"{b:.{digits}f}" for a, b in pairs):
            return digits
    return MOST


def change_text(value: float, *, apart_from: float = math.nan) -> str:
    """Write a change, 0 to 1, with three decimals, or as many more as tell it from what it is judged by.

    Examples
    --------
    >>> change_text(0.4321), change_text(float("nan")), change_text(0.01524, apart_from=0.01501)
    ('0.432', '–', '0.0152')
    """
    if not math.isfinite(value):
        return "–"
    digits = max(3, digits_that_tell([value], apart_from=[apart_from]))
    return f"{max(value, 0.0):.{digits}f}"
