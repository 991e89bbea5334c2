"""What the site is made of beside the pages: notebooks, the command line's help, and the pictures of the gallery.

The gallery's code is executed on the demo's run (`make demo`), block by block, and what a block ends with is shown
under it.
"""

import ast
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
GALLERY = "gallery.md"
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@event_priority(100)  # before the plugin that renders notebooks looks for them
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the notebooks, the command line's page, and the gallery's pictures."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        files.append(File(f"notebooks/{path.name}", str(ROOT), config.site_dir, config.use_directory_urls))
    files.append(File.generated(config, "reference/cli.md", content=command_line()))
    gallery = files.get_file_from_path(GALLERY)
    assert gallery is not None
    pictures = draw(BLOCK.findall(gallery.content_string))
    for name, content in pictures.items():
        files.append(File.generated(config, f"pictures/{name}", content=content))
    blocks = iter(range(len(BLOCK.findall(gallery.content_string))))
    shown = {int(name.split(".")[0]): name for name in pictures}

    def with_picture(match: re.Match[str]) -> str:
        number = next(blocks)
        return match[0] + (f"\n\n![What this draws](pictures/{shown[number]})\n" if number in shown else "")

    gallery.content_string = BLOCK.sub(with_picture, gallery.content_string)
    return files


def command_line() -> str:
    """Return the help of every command, as Markdown."""
    made = subprocess.run(
        [sys.executable, "-m", "typer", "fmcluster.cli", "utils", "docs", "--name", "fmcluster"],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise PluginError(f"the command line's help cannot be written: {made.stderr}")
    return made.stdout


def draw(blocks: list[str]) -> dict[str, bytes]:
    """Execute blocks of code one after the other, and return what those draw that end with a picture."""
    run = ROOT / "demo" / "run.zarr"
    if not run.exists():
        raise PluginError(f"the gallery is drawn from the demo's run, and there is none at {run}; call make demo first")
    mpl.use("agg")
    from matplotlib.animation import FuncAnimation
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    namespace: dict[str, Any] = {}
    pictures = {}
    for number, block in enumerate(blocks):
        tree = ast.parse(block)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, GALLERY, "exec"), namespace)
        result = None if last is None else eval(compile(ast.Expression(last.value), GALLERY, "eval"), namespace)  # type: ignore[attr-defined]
        file = io.BytesIO()
        if isinstance(result, Axes):
            result = result.get_figure(root=True)
        if isinstance(result, Figure):
            result.savefig(file, format="png", dpi=110, bbox_inches="tight")
            pictures[f"{number}.png"] = file.getvalue()
        elif isinstance(result, FuncAnimation):
            path = ROOT / "demo" / "animation.gif"
            result.save(path, writer="pillow", dpi=80)
            pictures[f"{number}.gif"] = path.read_bytes()
    return pictures
