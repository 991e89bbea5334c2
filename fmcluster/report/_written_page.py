"""Written page: the path of its file, which shows the page in a notebook."""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

# before Python 3.12, only what `Path` makes of itself on this system can be inherited from
if TYPE_CHECKING:
    _Path = Path
else:
    _Path = type(Path())

LARGEST = 40 << 20  # bytes of a page that a notebook takes into itself


class WrittenPage(_Path):
    """The path of a page; in a notebook, the page itself.

    It is a `pathlib.Path` in every respect. A cell that ends with it shows the page in a frame of its own, which holds
    all of the page: the notebook can be moved and sent without the file, and grows by its size.

    Examples
    --------
    >>> WrittenPage("report.html").name
    'report.html'
    """

    def _repr_html_(self) -> str | None:
        """Return a frame with the page; None, and so the path alone, where there is no page of a size to be shown."""
        if self.suffix not in (".html", ".htm") or not self.is_file() or self.stat().st_size > LARGEST:
            return None
        page = escape(self.read_text(encoding="utf-8"))
        return (
            f'<iframe title="{escape(self.name)}" srcdoc="{page}" sandbox="allow-scripts" loading="lazy" '
            'style="width: 100%; height: 900px; border: 1px solid #8888; border-radius: 6px"></iframe>'
        )
