"""Projector: rows written for TensorBoard's Embedding Projector."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from ..analysis import Clusters, Embedding, Scores
from ..plot.drawing import cluster_name, snapshot_table, snapshot_titles
from ..store import Layer, escape, stage
from ._event_file import PREFIX, check_tensorboard, write_events
from ._new_folder import new_folder
from ._tensorboard import as_markdown, check_folder
from ._thumbnails import sheet_of, thumbnails

if TYPE_CHECKING:
    from tensorboard.plugins.projector import ProjectorConfig

CONFIG, FOLDER, SUFFIX = "projector_config.pbtxt", "projector", ".fmcluster-projector"
MOST_ROWS = 100_000


def to_projector(
    rows: Scores | Embedding,
    log_dir: str | os.PathLike[str],
    *,
    clusters: Clusters | None = None,
    layer: Layer | None = None,
    sample: int | None = None,
    per_snapshot: bool = False,
    name: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the rows of a view for TensorBoard's Embedding Projector, which turns and embeds them itself.

    Each row has the columns of its result (snapshot, epoch, step, and what it is) by which the projector colors,
    labels and searches, and a small picture where there is one. All snapshots are one tensor, as the projector makes
    its picture of one tensor at a time: only so do the rows of all snapshots share an embedding, in which they can
    be seen to move. A search for an epoch or a channel then picks some of them out.

    Parameters
    ----------
    rows : Scores or Embedding
        Made by `pca`: all components are written, which keep the distances. Or an embedding made by `embed`.
    log_dir : path-like
        The folder of TensorBoard's run; it is made where it does not exist. What is in it stays, embeddings exported
        before under other names among it.
    clusters : Clusters, optional
        Of the same rows; another column.
    layer : Layer, optional
        Where the rows come from: gives them pictures and the classes of their samples.
    sample : int, optional
        The image on which channels are shown, by its index in the data set; by default the first. A row that is of a
        sample shows that one.
    per_snapshot : bool
        Whether each snapshot becomes a tensor of its own, which is smaller but has an embedding of its own.
    name : str, optional
        What the projector calls it; by default the layer and the view.
    overwrite : bool
        Whether an export of the same name in the folder is replaced.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ImportError
        Where TensorBoard is not installed: it comes with ``fmcluster[tensorboard]``.
    FileExistsError
        Where the folder has a tensor of this name and `overwrite` is not set.
    NotADirectoryError
        Where `log_dir` is a file.
    TypeError
        For what is neither scores nor an embedding.
    ValueError
        For more rows than the projector reads (100,000), clusters of other rows, another layer than that of the rows,
        no such sample, or a folder whose projector settings cannot be read.
    """
    check_tensorboard()
    from tensorboard.plugins import projector

    _check(rows, clusters=clusters, layer=layer, per_snapshot=per_snapshot)
    folder = check_folder(Path(log_dir))
    called = plain(name or f"{rows.layer} {rows.view}")
    parts = list(_parts(rows, called, per_snapshot=per_snapshot))
    config = _read_config(folder)
    known = {embedding.tensor_name for embedding in config.embeddings}
    if (taken := known & {title for title, _ in parts}) and not overwrite:
        raise FileExistsError(
            f"{folder} has an embedding {min(taken)!r} already; "
            f"pass overwrite=True (--overwrite) to replace it, or another name"
        )
    table = _metadata(rows, clusters=clusters, layer=layer)
    pictures = None if layer is None else thumbnails(layer, rows.rows, sample=_sample(layer, sample))
    earlier = [found for title, _ in parts for found in _folders_of(folder, title)]
    with new_folder(folder), stage(folder / FOLDER) as beside:
        made = {title: beside / _free_name(folder, title) for title, _ in parts}
        for title, here in parts:
            inside = made[title]
            inside.mkdir()
            for known_one in [each for each in config.embeddings if each.tensor_name == title]:
                config.embeddings.remove(known_one)
            entry = config.embeddings.add(tensor_name=title)
            entry.tensor_shape.extend([int(here.sum()), rows.values.shape[1]])
            entry.tensor_path = f"{FOLDER}/{inside.name}/tensors.tsv"
            np.savetxt(inside / "tensors.tsv", rows.values[here], fmt="%.9g", delimiter="\t")
            entry.metadata_path = f"{FOLDER}/{inside.name}/metadata.tsv"
            _write_table(table[here], inside / "metadata.tsv")
            if pictures is not None:
                entry.sprite.image_path = f"{FOLDER}/{inside.name}/sprite.png"
                entry.sprite.single_image_dim.extend([pictures.shape[2], pictures.shape[1]])
                Image.fromarray(sheet_of(pictures[here])).save(inside / "sprite.png")
        projector.visualize_embeddings(str(beside), config)
        (folder / FOLDER).mkdir(exist_ok=True)
        for inside in made.values():
            inside.rename(folder / FOLDER / inside.name)  # nobody looks there before the settings say so
        (beside / CONFIG).replace(folder / CONFIG)
    for each in earlier:
        shutil.rmtree(each, ignore_errors=True)
    if not any(folder.glob(f"{PREFIX}*")):  # without events, TensorBoard takes no folder for a run
        said = f"{called}: {len(rows.rows)} rows, {rows.n_snapshots} snapshots; look at them under Projector."
        with write_events(folder, suffix=SUFFIX) as events:
            events.add_text("projector", as_markdown([said]), step=0)
    return folder


def _folders_of(folder: Path, title: str) -> list[Path]:
    """Return where an embedding lies, and where one that was never finished does."""
    name = re.compile(re.escape(escape(title)) + r"(~\.\d+)?")
    there = (folder / FOLDER).iterdir() if (folder / FOLDER).is_dir() else ()
    return [each for each in there if name.fullmatch(each.name)]


def _free_name(folder: Path, title: str) -> str:
    """Return the name of a folder that is not there yet: what the settings lead to stays until they lead elsewhere."""
    taken = {each.name for each in _folders_of(folder, title)}
    names = (escape(title) + (f"~.{number}" if number else "") for number in range(len(taken) + 1))
    return next(name for name in names if name not in taken)


def plain(text: object) -> str:
    """Return text on one line without tabs, which end a cell of the projector's tables."""
    return " ".join(str(text).split())


def _check(rows: Scores | Embedding, *, clusters: Clusters | None, layer: Layer | None, per_snapshot: bool) -> None:
    if not isinstance(rows, Scores | Embedding):
        raise TypeError(f"to_projector received a {type(rows).__name__}; expected what pca or embed returned")
    count = len(rows.rows) // (rows.n_snapshots if per_snapshot else 1)
    if count > MOST_ROWS:
        raise ValueError(
            f"the projector reads {MOST_ROWS:,} rows, and these are {count:,}; "
            f"draw some with layer.vectors(view, n_rows=...)" + ("" if per_snapshot else ", or pass per_snapshot=True")
        )
    if clusters is not None:
        clusters.check_same_rows(rows)
    if layer is not None and layer.label != rows.layer:
        raise ValueError(f"received the layer {layer.label!r} with rows of {rows.layer!r}; expected the rows' own")


def _sample(layer: Layer, sample: int | None) -> int | None:
    known = layer.vectors("sample").samples
    if sample is None:
        return int(known[0]) if len(known) else None
    if sample not in known:
        raise ValueError(f"there is no sample {sample}; expected one of the {len(known)} that every snapshot holds")
    return sample


def _parts(rows: Scores | Embedding, name: str, *, per_snapshot: bool) -> "Iterator[tuple[str, np.ndarray[Any, Any]]]":
    """Yield each tensor's name and which rows it has."""
    if not per_snapshot:
        yield name, np.ones(len(rows.rows), bool)
        return
    table = snapshot_table(rows.rows)
    for snapshot, title in zip(table["snapshot"], snapshot_titles(table), strict=True):
        yield f"{name}, {title}", (rows.rows["snapshot"] == snapshot).to_numpy()


def _read_config(folder: Path) -> "ProjectorConfig":
    """Return the projector's settings in a folder, empty where there are none."""
    from google.protobuf import text_format
    from tensorboard.plugins.projector import ProjectorConfig

    config = ProjectorConfig()
    if (folder / CONFIG).exists():
        try:
            text_format.Parse((folder / CONFIG).read_text(encoding="utf-8"), config)
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{folder / CONFIG} cannot be read: {plain(error)}; remove it or pass another folder"
            ) from None
    return config


def _metadata(rows: Scores | Embedding, *, clusters: Clusters | None, layer: Layer | None) -> pd.DataFrame:
    """Return what is known of each row: first its name, by which the projector labels; then what it colors by."""
    known = rows.rows
    table = snapshot_table(known)
    titles = known["snapshot"].map(dict(zip(table["snapshot"], snapshot_titles(table), strict=True)))
    names = titles.astype(str)
    for column in reversed(rows.identity):
        names = f"{column} " + known[column].astype(str) + ", " + names
    columns: dict[str, Any] = {"row": names}
    if clusters is not None:
        columns["cluster"] = [cluster_name(int(label)) for label in clusters.labels]
    classes = None if layer is None else layer.samples.get("class_name")
    if classes is not None and "sample" in known:
        columns["class"] = known["sample"].map(classes)
    for column in known.columns:
        columns[column] = known[column]
    return pd.DataFrame(columns)


def _write_table(table: pd.DataFrame, path: Path) -> None:
    lines = ["\t".join(map(plain, table.columns))]
    lines += ["\t".join(map(plain, row)) for row in table.itertuples(index=False)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
