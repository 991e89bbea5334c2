"""What TensorBoard's projector finds in an export: its files, and what its own plugin serves of them."""

import io
import json
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import seaborn  # noqa: F401  (registers the color map "vlag")
from google.protobuf import text_format
from matplotlib import colormaps
from PIL import Image
from sklearn.cluster import KMeans
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins import projector
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
from werkzeug.test import Client

import fmcluster as fm
from fmcluster.analysis import Scores
from fmcluster.export import to_projector
from fmcluster.export._projector import MOST_ROWS
from fmcluster.export._thumbnails import CONSTANT, LARGEST, MOST_PIXELS, sheet_of, thumbnails
from fmcluster.plot.drawing._tiles import as_tiles, scale_of
from fmcluster.store import Run
from tests.export.exported_run import HOSTILE_LAYER, record

with warnings.catch_warnings():  # of the sanitizer of HTML that TensorBoard brings along
    warnings.filterwarnings("ignore", message="html5lib's sanitizer is deprecated", category=DeprecationWarning)
    from tensorboard import program
    from tensorboard.backend.application import TensorBoardWSGI

PLUGIN = "/data/plugin/projector"


@pytest.fixture(scope="module")
def scores(run: Run) -> Scores:
    return fm.pca(run[HOSTILE_LAYER].vectors("channel"))


@pytest.fixture(scope="module")
def exported(run: Run, scores: Scores, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs") / "run"
    clusters = fm.cluster(scores, KMeans(3, random_state=0))
    assert to_projector(scores, folder, clusters=clusters, layer=run[HOSTILE_LAYER], sample=5) == folder
    return folder


def read_config(folder: Path) -> projector.ProjectorConfig:
    return text_format.Parse((folder / "projector_config.pbtxt").read_text(), projector.ProjectorConfig())


def table(folder: Path, path: str) -> list[list[str]]:
    return [line.split("\t") for line in (folder / path).read_text().rstrip("\n").split("\n")]


def tiles(folder: Path, entry: projector.EmbeddingInfo) -> np.ndarray:
    """Cut a sprite as the projector does: line by line."""
    width, height = entry.sprite.single_image_dim
    with Image.open(folder / entry.sprite.image_path) as image:
        sheet = np.asarray(image.convert("RGB"))
    across = sheet.shape[1] // width
    assert sheet.shape[:2] == (across * height, across * width)
    return sheet.reshape(across, height, across, width, 3).swapaxes(1, 2).reshape(-1, height, width, 3)


def serve(log_dir: Path) -> Client:
    """Return a client of TensorBoard's web application with its projector alone, as it shows a folder of logs."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(log_dir)).Reload()
    provider = MultiplexerDataProvider(multiplexer, str(log_dir))
    plugin = ProjectorPlugin(TBContext(logdir=str(log_dir), data_provider=provider))
    return Client(TensorBoardWSGI([plugin], data_provider=provider))


def test_the_tensor_is_all_scores_of_all_snapshots(exported, scores):
    (entry,) = read_config(exported).embeddings
    assert entry.tensor_name == f"{HOSTILE_LAYER} channel"
    assert list(entry.tensor_shape) == list(scores.values.shape) == [36, 36]
    written = np.loadtxt(exported / entry.tensor_path, delimiter="\t")
    np.testing.assert_allclose(written, scores.values, rtol=1e-8, atol=1e-12)


def test_the_table_has_a_header_and_a_line_for_each_row(exported, scores):
    (entry,) = read_config(exported).embeddings
    header, *lines = table(exported, entry.metadata_path)
    assert header == ["row", "cluster", "snapshot", "epoch", "step", "channel"]
    assert len(lines) == len(scores.rows)
    assert [line[2:] for line in lines] == scores.rows.astype(str).to_numpy().tolist()
    assert lines[0][0] == "channel 0, epoch 0"
    assert lines[-1][0] == "channel 11, epoch 1, step 10"
    assert {line[1] for line in lines} == {"cluster 0", "cluster 1", "cluster 2"}


def test_the_pictures_are_the_channels_maps_on_the_chosen_sample(exported, run, scores):
    (entry,) = read_config(exported).embeddings
    layer, drawn = run[HOSTILE_LAYER], tiles(exported, entry)
    assert list(entry.sprite.single_image_dim) == [LARGEST, LARGEST]
    maps = np.stack([as_tiles(layer.read(snapshot=number, samples=5), axes=layer.dimensions) for number in range(3)])
    pixel = np.arange(LARGEST) * maps.shape[2] // LARGEST
    for channel in (0, 7):
        norm = scale_of(maps[:, channel], signed=True).norm
        for snapshot in range(3):
            colors = colormaps["vlag"](norm(maps[snapshot, channel]), bytes=True)[..., :3]
            np.testing.assert_array_equal(drawn[snapshot * 12 + channel], colors[np.ix_(pixel, pixel)])
    assert (drawn[[12 + 3, 24 + 3]] == CONSTANT).all()
    assert drawn[3].std() > 1
    assert (drawn[36:] == 0).all()


def test_the_projectors_own_plugin_serves_it(exported, scores):
    client = serve(exported.parent)
    assert json.loads(client.get(f"{PLUGIN}/runs").data) == ["run"]
    (entry,) = json.loads(client.get(f"{PLUGIN}/info?run=run").data)["embeddings"]
    assert entry["tensorShape"] == [36, 36]
    asked = f"run=run&name={quote(entry['tensorName'])}"
    tensor = np.frombuffer(client.get(f"{PLUGIN}/tensor?{asked}").data, np.float32)
    np.testing.assert_allclose(tensor.reshape(36, 36), scores.values, rtol=1e-6, atol=1e-9)
    assert len(client.get(f"{PLUGIN}/metadata?{asked}").data.decode().rstrip("\n").split("\n")) == 37
    sprite = client.get(f"{PLUGIN}/sprite_image?{asked}")
    assert sprite.status_code == 200
    with Image.open(io.BytesIO(sprite.data)) as image:
        assert image.size == (6 * LARGEST, 6 * LARGEST)


def exported_again(scores: Scores, folder: Path, **others: object) -> list[str]:
    to_projector(scores, folder, **others)
    return [entry.tensor_name for entry in read_config(folder).embeddings]


def test_maps_of_several_names_share_a_folder_and_none_is_lost(run, scores, tmp_path):
    theirs = projector.ProjectorConfig()
    theirs.embeddings.add(tensor_name="theirs", tensor_path="theirs.tsv")
    projector.visualize_embeddings(str(tmp_path), theirs)
    (tmp_path / "theirs.tsv").write_text("1\t2\n")
    own = f"{HOSTILE_LAYER} channel"
    assert exported_again(scores, tmp_path) == ["theirs", own]
    assert exported_again(scores, tmp_path, name="other\tname") == ["theirs", own, "other name"]
    with pytest.raises(FileExistsError, match="overwrite=True"):
        to_projector(scores, tmp_path)
    embedding = fm.embed(scores, random_state=0)
    assert exported_again(embedding, tmp_path, overwrite=True) == ["theirs", "other name", own]
    replaced = read_config(tmp_path).embeddings[2]
    assert list(replaced.tensor_shape) == [36, 2]
    np.testing.assert_allclose(np.loadtxt(tmp_path / replaced.tensor_path), embedding.values, rtol=1e-8)
    assert (tmp_path / "theirs.tsv").exists()
    assert len(list(tmp_path.glob("events.*"))) == 1
    names = json.loads(serve(tmp_path).get(f"{PLUGIN}/info?run=.").data)["embeddings"]
    assert [entry["tensorName"] for entry in names] == ["theirs", "other name", own]
    assert not list(tmp_path.glob(".*"))


def test_what_the_settings_lead_to_is_whole_at_every_moment(scores, tmp_path, monkeypatch):
    def whole() -> bool:
        (entry,) = read_config(tmp_path).embeddings
        return len(table(tmp_path, entry.metadata_path)) == 37 and (tmp_path / entry.tensor_path).is_file()

    def watched(method):
        def call(*args, **kwargs):
            seen.append(whole())
            found = method(*args, **kwargs)
            seen.append(whole())
            return found

        return call

    to_projector(scores, tmp_path, name="one")
    seen: list[bool] = []
    for where, name in ((Path, "rename"), (Path, "replace"), (shutil, "rmtree")):
        monkeypatch.setattr(where, name, watched(getattr(where, name)))
    for _ in range(2):
        to_projector(scores, tmp_path, name="one", overwrite=True)
    assert len(seen) > 8
    assert all(seen)
    assert len(list((tmp_path / "projector").iterdir())) == 1
    assert not list(tmp_path.glob(".*"))


def test_each_snapshot_as_a_tensor_of_its_own(run, scores, tmp_path):
    layer = run[HOSTILE_LAYER]
    names = exported_again(scores, tmp_path, per_snapshot=True, layer=layer)
    own = f"{HOSTILE_LAYER} channel"
    assert names == [f"{own}, epoch 0", f"{own}, epoch 1, step 4", f"{own}, epoch 1, step 10"]
    whole = thumbnails(layer, scores.rows, sample=0)
    for number, entry in enumerate(read_config(tmp_path).embeddings):
        here = slice(12 * number, 12 * number + 12)
        np.testing.assert_allclose(np.loadtxt(tmp_path / entry.tensor_path), scores.values[here], rtol=1e-8, atol=1e-12)
        assert len(table(tmp_path, entry.metadata_path)) == 13
        np.testing.assert_array_equal(tiles(tmp_path, entry)[:12], whole[here])


@pytest.mark.parametrize("view", ["sample", "position"])
def test_rows_that_are_of_an_image_show_it_and_its_class(run, view, tmp_path):
    layer = run["conv1"]
    rows = fm.pca(layer.vectors(view, n_rows=10, random_state=0), n_components=3)
    to_projector(rows, tmp_path, layer=layer)
    (entry,) = read_config(tmp_path).embeddings
    header, *lines = table(tmp_path, entry.metadata_path)
    assert header[:2] == ["row", "class"]
    sample = rows.rows["sample"].tolist()
    assert [line[1] for line in lines] == layer.samples["class_name"].loc[sample].tolist()
    picture = Image.fromarray(layer.display(sample[4])).resize((LARGEST, LARGEST), Image.Resampling.BOX)
    np.testing.assert_array_equal(tiles(tmp_path, entry)[4], np.asarray(picture))


def test_a_row_that_is_a_map_shows_itself_and_is_averaged_down(run):
    layer = run["conv1"]
    rows = layer.vectors("feature_map", n_rows=5, random_state=0).rows
    drawn = thumbnails(layer, rows, sample=None)
    assert drawn.shape == (15, LARGEST, LARGEST, 3)
    alone = thumbnails(layer, rows[["snapshot", "channel"]], sample=int(rows["sample"].iloc[0]))
    same = (rows["sample"] == rows["sample"].iloc[0]).to_numpy()
    assert (drawn[same].reshape(same.sum(), -1).std(axis=1) > 1).all()
    assert alone.shape == drawn.shape


def test_a_sheet_is_never_larger_than_the_projector_takes(run):
    layer = run["conv1"]
    rows = fm.pca(layer.vectors("sample")).rows
    many = rows.iloc[np.zeros(180**2 + 1, int)]
    drawn = thumbnails(layer, many, sample=None)
    assert drawn.shape[1] == MOST_PIXELS // 181 == 45
    assert max(sheet_of(drawn[:, :1, :1]).shape) == 181
    assert thumbnails(layer, rows.iloc[np.zeros(2050**2, int)], sample=None) is None


def test_class_names_with_tabs_and_line_breaks_stay_in_their_cell(tmp_path):
    run = record(tmp_path, steps=(0, 4), classes=("a\tb\r\nc", "\u2028<script>\x0b"))
    layer = run["fc"]
    to_projector(fm.pca(layer.vectors("sample")), tmp_path / "logs", layer=layer, name="a/../\nb")
    (entry,) = read_config(tmp_path / "logs").embeddings
    header, *lines = table(tmp_path / "logs", entry.metadata_path)
    assert len(lines) == 24
    assert {len(line) for line in [header, *lines]} == {6}
    assert {line[1] for line in lines} == {"a b c", "<script>"}
    assert (tmp_path / "logs" / entry.tensor_path).resolve().parent.parent == tmp_path / "logs" / "projector"
    answer = serve(tmp_path).get(f"{PLUGIN}/metadata?run=logs&name={quote(entry.tensor_name)}")
    assert len(answer.data.decode().split("\n")) == 26


def test_without_a_layer_there_is_no_picture(scores, tmp_path):
    to_projector(scores, tmp_path)
    (entry,) = read_config(tmp_path).embeddings
    assert not entry.HasField("sprite")


def test_bad_input_is_refused_before_anything_is_written(run, scores, tmp_path):
    others = fm.cluster(fm.pca(run["conv1"].vectors("channel")), KMeans(2, random_state=0))
    folder = tmp_path / "logs"
    with pytest.raises(TypeError, match="expected what pca or embed returned"):
        to_projector(run, folder)
    with pytest.raises(ValueError, match="clusters of 30 rows of 'conv1'"):
        to_projector(scores, folder, clusters=others)
    with pytest.raises(ValueError, match="expected the rows' own"):
        to_projector(scores, folder, layer=run["conv1"])
    with pytest.raises(ValueError, match="no sample 99; expected one of the 12"):
        to_projector(scores, folder, layer=run[HOSTILE_LAYER], sample=99)
    assert not folder.exists()
    folder.mkdir()
    (folder / "projector_config.pbtxt").write_text("embeddings { nonsense")
    with pytest.raises(ValueError, match="cannot be read"):
        to_projector(scores, folder)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is a file"):
        to_projector(scores, tmp_path / "file")


def test_more_rows_than_the_projector_reads_are_refused(scores, tmp_path):
    count = MOST_ROWS // 36 + 1
    many = replace(
        scores, rows=scores.rows.loc[scores.rows.index.repeat(count)], values=np.repeat(scores.values, count, axis=0)
    )
    with pytest.raises(ValueError, match="100,000 rows, and these are 100,008"):
        to_projector(many, tmp_path)


@pytest.mark.browser
def test_tensorboard_in_a_browser_shows_every_point(browser, exported):
    tensorboard = program.TensorBoard()
    tensorboard.configure(argv=[None, "--logdir", str(exported.parent), "--port", "0", "--load_fast", "false"])
    url = tensorboard.launch()
    context = browser.new_context()
    try:
        context.route(re.compile(f"^(?!{re.escape(url)}|data:|blob:)"), lambda route: route.abort())
        page = context.new_page()
        page.goto(f"{url}#projector")
        shown = page.frame_locator("iframe").frame_locator("iframe")
        shown.get_by_text("Points: 36").wait_for(timeout=60_000)
        assert shown.get_by_text("Dimension: 36").is_visible()
        assert shown.get_by_text(f"{HOSTILE_LAYER} channel").count()
    finally:
        context.close()
