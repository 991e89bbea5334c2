"""Layer expression: what a pattern of layer names matches."""

import re


def layer_expression(pattern: str) -> re.Pattern[str]:
    """Return a layer pattern as a regular expression: ``*`` and ``?`` stop at dots."""
    return re.compile(re.escape(pattern).replace(r"\*", "[^.]*").replace(r"\?", "[^.]"))
