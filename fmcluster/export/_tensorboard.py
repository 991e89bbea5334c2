"""TensorBoard: a run written as its logs."""

import html
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from ..analysis import MAX_BYTES, Reducer, ResultCache
from ..store import Run
from ._collect import Progress, choose, collect
from ._entries import Distribution, Entry, Picture, Scalar, Text
from ._event_file import PREFIX, EventFile, check_tensorboard, write_events

SUFFIX = ".fmcluster"

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|])")


def to_tensorboard(
    run: Run,
    log_dir: str | os.PathLike[str],
    *,
    layers: Sequence[str] | None = None,
    samples: Sequence[int] | None = None,
    view: str = "channel",
    n_clusters: int = 8,
    reducer: Reducer | None = None,
    diagnosis: bool = True,
    random_state: int = 0,
    max_bytes: int = MAX_BYTES,
    overwrite: bool = False,
    cache: ResultCache | Literal["beside"] | None = "beside",
    progress: Progress | None = None,
) -> Path:
    """Write what a run shows as events that TensorBoard reads, each at the optimizer step of its snapshot.

    Scalars: the metrics; of each layer the mean over its channels of their stored statistics, the churn of its
    clusters, and what `diagnose` measured. Histograms: how the channels spread around these means. Images: the channel
    grid and the embedding at every snapshot, through which TensorBoard's slider walks, and at the last one the
    evolution of the channels, trajectories, flow, churn and all embeddings side by side. Text: what `diagnose` says.

    TensorBoard keeps ten images of a name unless asked otherwise: of a run with more snapshots,
    ``tensorboard --logdir LOG_DIR --samples_per_plugin images=100`` shows all.

    Parameters
    ----------
    run : Run
        Made by `open_run`.
    log_dir : path-like
        The folder of TensorBoard's run, as in `SummaryWriter`; it is made where it does not exist. Events in it that
        others wrote, such as the training itself, stay and are shown with these.
    layers : sequence of str, optional
        Which layers. By default the statistics of all, and pictures of up to five, spread over the depth.
    samples : sequence of int, optional
        The images on which feature maps are shown, by their index in the data set; by default the first.
    view : str
        What a point in the embeddings is: ``"channel"``, or another view of `Layer.vectors`. Of more than 2,048 rows in
        a snapshot as many are drawn at random.
    n_clusters : int
        How many clusters k-means looks for in each layer; fewer where there are fewer rows.
    reducer : scikit-learn style reducer, optional
        Makes the embeddings; by default that of `embed`.
    diagnosis : bool
        Whether to `diagnose` the run, which reads all of it.
    random_state : int
        Seed.
    max_bytes : int
        Memory that each step of the analysis may take.
    overwrite : bool
        Whether an earlier export in `log_dir` is replaced, once the new one is whole; others' events never are.
    cache : ResultCache, "beside" or None
        Where results are saved and used again; by default beside the run. None to compute all.
    progress : callable, optional
        Called before each stage with what it is, how many stages are done, and how many there are.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ImportError
        Where TensorBoard is not installed: it comes with ``fmcluster[tensorboard]``.
    FileExistsError
        Where the folder holds an earlier export and `overwrite` is not set: TensorBoard would draw both as one.
    NotADirectoryError
        Where `log_dir` is a file.
    TypeError
        For what is not a run, and layers or samples that are not in a sequence.
    StoreError
        Where the run has no snapshot yet, or is damaged.
    KeyError
        Where it has no such layer.
    ValueError
        Where it has no such sample, the view is unknown, or a layer has too few rows for an embedding.
    """
    check_tensorboard()
    wanted = choose(
        run,
        layers=layers,
        samples=samples,
        view=view,
        n_clusters=n_clusters,
        reducer=reducer,
        random_state=random_state,
        max_bytes=max_bytes,
        diagnosis=diagnosis,
        cache=cache,
    )
    folder = Path(log_dir)
    earlier = exported(folder)
    if earlier and not overwrite:
        raise FileExistsError(
            f"{folder} holds an earlier export, and TensorBoard would draw both as one; "
            f"pass overwrite=True (--overwrite) to replace it, or another folder"
        )
    with write_events(folder, suffix=SUFFIX) as events:
        log(events, collect(wanted, progress=progress))
    remove(earlier)
    return folder


def log(events: EventFile, entries: Iterable[Entry]) -> None:
    """Write entries as TensorBoard's events; it has no form for tables."""
    for entry in entries:
        name, at = entry.name, entry.step.at
        if isinstance(entry, Scalar):
            events.add_scalar(name, entry.value, step=at)
        elif isinstance(entry, Distribution):
            events.add_histogram(name, entry.values, step=at)
        elif isinstance(entry, Picture):
            events.add_image(name, entry.pixels, step=at)
        elif isinstance(entry, Text):
            events.add_text(name, as_markdown(entry.lines), step=at)


def as_markdown(lines: Sequence[str]) -> str:
    """Return plain text as a list in Markdown, in which every character stands for itself.

    Examples
    --------
    >>> as_markdown(["freeze <b>layer1</b>", "2 * 3"])
    '- freeze &lt;b&gt;layer1&lt;/b&gt;\\n- 2 \\\\* 3'
    """
    plain = (html.escape(" ".join(line.split()), quote=False) for line in lines)
    return "\n".join("- " + _MARKDOWN.sub(r"\\\1", line) for line in plain)


def exported(folder: Path) -> list[Path]:
    """Return the files of events in a folder that an export wrote."""
    return sorted(check_folder(folder).glob(f"{PREFIX}*{SUFFIX}"))


def check_folder(folder: Path) -> Path:
    """Return a folder, which need not exist; a file there is an error."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; events go into a folder")
    return folder


def remove(files: Iterable[Path]) -> None:
    """Remove files."""
    for file in files:
        file.unlink(missing_ok=True)
