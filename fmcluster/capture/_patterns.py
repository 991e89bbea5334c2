"""Layer patterns: names of modules in which ``*`` and ``?`` stop at dots, and all else that chooses layers."""

import re
from collections.abc import Callable, Iterable

from torch import nn

Choice = str | re.Pattern[str] | type[nn.Module]
Layers = Choice | Iterable[Choice] | Callable[[str, nn.Module], bool]


def known_names(modules: Iterable[str]) -> str:
    """Say which names there are, for an error."""
    names = list(modules)
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"it has: {', '.join(names[:12])}{more}" if names else "it has no submodules"
