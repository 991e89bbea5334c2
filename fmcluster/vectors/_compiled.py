"""Compiled functions: loops over values, by Numba."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(*, fastmath: bool | set[str] = False, error_model: str = "python") -> Callable[[Any], Any]:
    """Compile a function; keep the result on the disk where there is a folder that may be written."""

    options: dict[str, Any] = {"fastmath": fastmath, "error_model": error_model}

    def compile_it(function: Any) -> Any:
        try:
            return numba.njit(nogil=True, cache=True, **options)(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            return numba.njit(nogil=True, **options)(function)

    return compile_it
