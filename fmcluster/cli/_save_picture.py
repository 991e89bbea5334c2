"""Pictures as files: still ones and animations, whole or not at all, also where what draws them hides a full disk."""

import subprocess
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from ._app import bars, status

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.figure import Figure


def save_still(figure: "Figure", output: Path, *, dpi: int, tight: bool = True) -> None:
    """Write a figure in the format of the file's name.

    Raises
    ------
    OSError
        Where it cannot be written; of a PDF, matplotlib itself would say so with errors of its own.
    """
    from ..store import write_beside

    content = BytesIO()
    with status(f"writing {output.name}"):
        figure.savefig(content, format=output.suffix[1:].lower(), dpi=dpi, bbox_inches="tight" if tight else None)
        with write_beside(output) as beside:
            beside.write_bytes(content.getbuffer())


def save_animation(animation: "FuncAnimation", output: Path, *, dpi: int) -> None:
    """Write an animation, as a GIF or, by ffmpeg, as an MP4.

    Raises
    ------
    OSError
        Where it cannot be written, or ffmpeg fails; with the first line of what that says.
    """
    from ..store import write_beside

    writer = "ffmpeg" if output.suffix.lower() == ".mp4" else "pillow"
    with bars() as progress, write_beside(output) as beside:
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
