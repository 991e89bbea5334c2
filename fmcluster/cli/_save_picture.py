"""Pictures as files: still ones and animations, whole or not at all, also where what draws them hides a full disk."""

import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from ._app import bars, status

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.figure import Figure


_MORE_SCRIPTS = (  # fonts that have what matplotlib's own lacks, where one is installed
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "WenQuanYi Zen Hei",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
    "Arial Unicode MS",
    "Noto Emoji",
    "Segoe UI Emoji",
    "Symbola",
)


@contextmanager
def _whole(output: Path) -> Iterator[Path]:
    """Yield a path beside the output, which then replaces it; what fails is said of the name that was asked for."""
    from ..store import write_beside

    try:
        with write_beside(output) as beside:
            yield beside
    except OSError as error:
        if error.strerror is None:  # it has its words already
            raise
        raise OSError(
            f"the picture cannot be written to {output}: the system says {error.strerror.lower()!r} of the folder "
            f"{output.parent}; choose another with -o"
        ) from error


@contextmanager
def _any_script(figure: "Figure | None" = None) -> Iterator[None]:
    """Write names in whatever script with the fonts there are; boxes stand for the rest, of which nothing warns.

    An animation makes its texts as it is written, so that nothing but the warnings is seen to there.
    """
    from matplotlib.font_manager import fontManager
    from matplotlib.text import Text

    known = set(fontManager.get_font_names())
    more = [name for name in _MORE_SCRIPTS if name in known]
    for text in figure.findobj(Text) if figure is not None and more else ():
        assert isinstance(text, Text)
        text.set_fontfamily([*text.get_fontfamily(), *more])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
        yield


def save_still(figure: "Figure", output: Path, *, dpi: int, tight: bool = True) -> None:
    """Write a figure in the format of the file's name.

    Raises
    ------
    OSError
        Where it cannot be written; of a PDF, matplotlib itself would say so with errors of its own.
    """
    content = BytesIO()
    with status(f"writing {output.name}"), _any_script(figure):
        figure.savefig(content, format=output.suffix[1:].lower(), dpi=dpi, bbox_inches="tight" if tight else None)
        with _whole(output) as beside:
            beside.write_bytes(content.getbuffer())


def save_animation(animation: "FuncAnimation", output: Path, *, dpi: int) -> None:
    """Write an animation, as a GIF or, by ffmpeg, as an MP4.

    Raises
    ------
    OSError
        Where it cannot be written, or ffmpeg fails; with the first line of what that says.
    """
    writer = "ffmpeg" if output.suffix.lower() == ".mp4" else "pillow"
    with bars() as progress, _whole(output) as beside, _any_script():
        task = progress.add_task(f"writing {output.name}", total=None)
        try:
            animation.save(
                beside,
                writer=writer,
                dpi=dpi,
                progress_callback=lambda done, total: progress.update(task, completed=done + 1, total=total),
            )
        except subprocess.CalledProcessError as error:
            said = (error.stderr or b"").decode(errors="replace").strip().splitlines() or ["nothing"]
            raise OSError(
                f"{output} cannot be written: ffmpeg ended with {error.returncode}, and says: {said[0]}"
            ) from error
