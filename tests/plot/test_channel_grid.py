from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from fmcluster import plot
from fmcluster.analysis._results import Clusters, Scores


def panel(figure):
    """Return the axes that hold the tiles: the last that were added."""
    return figure.axes[-1]


def tiles(figure):
    return panel(figure).images


def words(figure):
    own = [text.get_text() for text in figure.texts]
    return own + [text.get_text() for ax in figure.axes for text in ax.texts]


def hatched(figure):
    return [patch for patch in panel(figure).patches if isinstance(patch, Rectangle) and patch.get_hatch()]


def test_grid_draws_what_the_layer_reads(layers):
    layer = layers["layer1"]
    figure = plot.channel_grid(layer, epoch=2, sample=3)
    read = layer.read(snapshot=4, samples=3, channels=list(range(64)))[0]
    drawn = iter(tiles(figure))
    for values in read:
        if np.ptp(values):
            np.testing.assert_array_equal(next(drawn).get_array(), values.astype(np.float32))
    assert next(drawn, None) is None
    assert len(tiles(figure)) + len(hatched(figure)) == 64


@pytest.mark.slow
def test_a_class_of_a_long_name_does_not_run_over_the_channels(layers):
    layer = layers["conv1"]
    long = replace(layer, samples=layer.samples.assign(class_name="a long name of a class of images"))
    figure = plot.channel_grid(long, epoch=1, sample=3)
    assert figure.axes[0].get_title(loc="left") == "input: sample 3"
    assert any("on sample 3 (a long name of a class of images)" in word for word in words(figure))


def test_grid_numbers_every_tile_and_says_what_it_shows(layers):
    figure = plot.channel_grid(layers["conv1"], epoch=1, sample=3)
    said = words(figure)
    assert "conv1 at epoch 1, step 8" in said
    assert "Activation of 64 channels, on sample 3 (digit 3); numbers are channels" in said
    assert [word for word in said if word.isdigit()] == [str(channel) for channel in range(64)]
    assert figure.axes[0].get_title(loc="left") == "input: sample 3 (digit 3)"
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), layers["conv1"].pictures[3])


def test_last_snapshot_is_the_default(layers):
    assert "conv1 at epoch 6" in words(plot.channel_grid(layers["conv1"]))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count", "columns"), [("conv1", 64, 8), ("layer4", 512, 23), ("fc", 10, 4)])
def test_grid_is_about_square(layers, name, count, columns):
    figure = plot.channel_grid(layers[name])
    drawn = [*tiles(figure), *hatched(figure)]
    assert len(drawn) == count
    lefts = [t.get_extent()[0] if hasattr(t, "get_extent") else t.get_x() for t in drawn]
    assert len({round(left, 6) for left in lefts}) == columns


def test_ten_by_ten_of_the_tutorial(layers):
    figure = plot.channel_grid(layers["layer4"], channels=range(100), columns=10)
    places = {(round(t.get_extent()[0], 6), round(t.get_extent()[3], 6)) for t in tiles(figure)}
    places |= {(round(p.get_x(), 6), round(p.get_y(), 6)) for p in hatched(figure)}
    assert len(places) == 100
    assert len({x for x, _ in places}) == len({y for _, y in places}) == 10


@pytest.mark.slow
def test_one_scale_for_all_with_its_bar(layers):
    figure = plot.channel_grid(layers["relu"])
    limits = {image.get_clim() for image in tiles(figure)}
    assert len(limits) == 1
    (low, high) = limits.pop()
    values = layers["relu"].activation[-1, 0].astype(np.float32)
    assert low == 0
    assert high == pytest.approx(np.percentile(values[values > 0], 99.5), rel=1e-5)
    bar = next(ax for ax in figure.axes if ax.get_ylabel() == "activation")
    assert bar.get_ylim() == pytest.approx((low, high))


def test_signed_layers_are_symmetric_about_zero_and_rectified_ones_start_at_it(layers):
    signed, rectified = (tiles(plot.channel_grid(layers[name])) for name in ("bn1", "relu"))
    low, high = signed[0].get_clim()
    assert low == -high
    assert signed[0].get_cmap().name == "icefire"
    assert rectified[0].get_cmap().name == "rocket"


def test_sign_is_that_of_the_layer_not_of_the_sample(layers):
    layer = layers["fc"]
    positive = layer.activation.copy()
    positive[:, 0] = np.abs(positive[:, 0])
    figure = plot.channel_grid(replace(layer, activation=positive), sample=0)
    assert tiles(figure)[0].get_cmap().name == "icefire"


@pytest.mark.slow
def test_outliers_do_not_darken_the_rest(layers):
    layer = layers["relu"]
    spiked = layer.activation.copy()
    spiked[-1, 0, 5, 0, 0] = 60000
    limits = [tiles(plot.channel_grid(one))[0].get_clim()[1] for one in (layer, replace(layer, activation=spiked))]
    assert limits[1] == pytest.approx(limits[0], rel=0.01)


def test_a_scale_for_each_channel(layers):
    figure = plot.channel_grid(layers["relu"], scale="channel")
    assert len({image.get_clim() for image in tiles(figure)}) > 50
    assert any("own scale" in ax.get_ylabel() for ax in figure.axes)


def test_dead_maps_are_hatched_and_counted(layers):
    layer = layers["relu"]
    some_dead = layer.activation.copy()
    some_dead[-1, 0, [3, 9]] = 0.5
    before = len(hatched(plot.channel_grid(layer)))
    figure = plot.channel_grid(replace(layer, activation=some_dead))
    assert len(hatched(figure)) == before + 2
    assert any(f"constant feature map ({before + 2} of 64)" in word for word in words(figure))


def test_a_single_place_is_no_dead_map_and_shows_its_value(layers):
    figure = plot.channel_grid(layers["fc"])
    assert not hatched(figure)
    assert f"{float(layers['fc'].activation[-1, 0, 0]):.2f}" in words(figure)


@pytest.mark.slow
def test_nan_and_inf_are_drawn_as_such_and_counted(layers):
    layer = layers["layer1"]
    broken = layer.activation.copy()
    broken[-1, 0, 2, 0, 0], broken[-1, 0, 3, 0, 0] = np.nan, np.inf
    figure = plot.channel_grid(replace(layer, activation=broken))
    assert any("in 2 of 64 feature maps" in word for word in words(figure))
    assert np.isfinite(tiles(figure)[0].get_clim()).all()


def test_a_layer_of_zeros_can_be_drawn(layers):
    figure = plot.channel_grid(replace(layers["layer1"], activation=layers["layer1"].activation * 0))
    assert len(hatched(figure)) == 64


def test_most_active_first(layers):
    layer = layers["conv1"]
    table = layer.statistics[layer.statistics["snapshot"] == 8]
    order = np.argsort(-(table["mean"] ** 2 + table["std"] ** 2).to_numpy(), kind="stable")
    figure = plot.channel_grid(layer, order="activity")
    assert [int(word) for word in words(figure) if word.isdigit()] == order.tolist()


def test_tokens_become_strips(layers):
    tokens = np.moveaxis(layers["layer1"].activation.reshape(9, 6, 64, -1)[..., :50], 2, 3)
    figure = plot.channel_grid(replace(layers["layer1"], activation=tokens), channels=[4])
    np.testing.assert_array_equal(tiles(figure)[0].get_array()[:, 0], tokens[-1, 0, :, 4].astype(np.float32))


def test_without_picture_or_class(layers):
    layer = layers["conv1"]
    bare = replace(layer, pictures=None, samples=layer.samples[["label"]])
    figure = plot.channel_grid(bare, sample=1, channels=[5])
    assert len(figure.axes) == 2
    assert "Activation of 1 channel, on sample 1; numbers are channels" in words(figure)


def test_figures_do_not_pile_up_in_pyplot(layers):
    import matplotlib.pyplot as plt

    plot.channel_grid(layers["fc"])
    plot.channel_evolution(layers["fc"])
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"epoch": 9}, "received epoch=9; expected one of 0, 1, 2"),
        ({"snapshot": 9}, "received snapshot=9; expected one of 0, 1"),
        ({"snapshot": 1, "epoch": 1}, "expected one of them"),
        ({"sample": 77}, "received sample=77; expected one of the 6 recorded samples"),
        ({"channels": [3, 64]}, "received channel 64 for layer 'conv1'; expected one or more of 0 to 63"),
        ({"channels": []}, "received no channel"),
        ({"order": "size"}, "received order='size'"),
        ({"scale": "row"}, "received scale='row'"),
        ({"columns": 0}, "received columns=0"),
    ],
)
def test_errors_say_what_to_do(layers, arguments, said):
    with pytest.raises(ValueError, match=said):
        plot.channel_grid(layers["conv1"], **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv1", "layer4", "avgpool", "fc"])
def test_no_text_leaves_the_page_or_meets_another(layers, name):
    figure = plot.channel_grid(layers[name], sample=3)
    figure.draw_without_rendering()
    page = figure.bbox
    texts = [text for ax in [None, *figure.axes] for text in (figure.texts if ax is None else ax.texts)]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    for box in boxes:
        assert page.x0 <= box.x0
        assert box.x1 <= page.x1
        assert page.y0 <= box.y0
        assert box.y1 <= page.y1
    edges = np.array([(box.x0, box.y0, box.x1, box.y1) for box in boxes])
    across = (edges[:, None, 0] < edges[None, :, 2]) & (edges[:, None, 2] > edges[None, :, 0])
    up = (edges[:, None, 1] < edges[None, :, 3]) & (edges[:, None, 3] > edges[None, :, 1])
    assert (across & up).sum() == len(boxes)


@pytest.mark.parametrize("draw", [plot.channel_grid, plot.channel_evolution])
def test_names_with_dollars_are_names_not_formulas(draw, layers, tmp_path):
    layer = replace(layers["conv1"], name="a$\\frac$b", samples=layers["conv1"].samples.assign(class_name="$\\frac$"))
    draw(layer, channels=range(4)).savefig(tmp_path / "a.png")


def test_channels_go_by_the_modules_numbers_where_some_were_kept(layers):
    whole = layers["conv1"]
    numbers = (40, 3, 17, 60, 25)
    part = replace(whole, activation=whole.activation[:, :, list(numbers)], numbers=numbers)
    figure = plot.channel_grid(part)
    assert [word for word in words(figure) if word.isdigit()] == ["40", "3", "17", "60", "25"]
    chosen = plot.channel_grid(part, channels=[60, 3])
    for tile, channel in zip(tiles(chosen), (60, 3), strict=True):
        np.testing.assert_array_equal(tile.get_array(), whole.activation[-1, 0, channel].astype(np.float32))
    strong = whole.statistics.query("snapshot == 8 and channel in @numbers")
    power = (strong["mean"] ** 2 + strong["std"] ** 2).set_axis(strong["channel"])
    active = [str(channel) for channel in power.sort_values(ascending=False).index]
    assert [word for word in words(plot.channel_grid(part, order="activity")) if word.isdigit()] == active
    rows = [word.removeprefix("ch ") for word in words(plot.channel_evolution(part)) if word.startswith("ch ")]
    assert sorted(rows) == sorted(map(str, numbers))
    with pytest.raises(ValueError, match=r"received channel 1 .* the 5 recorded, `layer\.channels`"):
        plot.channel_grid(part, channels=[1])


def test_gradients_are_said_to_be_such(layers):
    gradient = replace(layers["conv1"], quantity="gradient")
    grid = plot.channel_grid(gradient)
    assert "conv1 gradient at epoch 6" in words(grid)
    assert "Gradient of 64 channels, on sample 0 (digit 0); numbers are channels" in words(grid)
    assert "gradient" in [ax.get_ylabel() for ax in grid.axes]
    evolution = plot.channel_evolution(gradient, channels=[1])
    assert "conv1 gradient over 9 snapshots, epoch 0 to 6" in words(evolution)
    assert "Gradient of 1 channel, on sample 0 (digit 0)" in words(evolution)


def clusters_of(layer, labels, *, snapshot=8, name=None):
    """Clusters of a layer's channels at one snapshot."""
    rows = layer.snapshots[layer.snapshots["snapshot"] == snapshot].merge(
        pd.DataFrame({"channel": layer.channels[: len(labels)]}), how="cross"
    )
    return Clusters(
        rows=rows, layer=name or layer.name, view="channel", fit="pooled", labels=np.array(labels), method="KMeans"
    )


def test_grid_by_cluster_puts_the_members_together_noise_and_what_is_in_none_last(layers):
    layer = layers["conv1"]
    labels = [1, 0, -1, 1, 0, 2]
    figure = plot.channel_grid(layer, channels=range(8), order="cluster", clusters=clusters_of(layer, labels))
    drawn = [int(word) for word in words(figure) if word.isdigit()]
    assert drawn[:5] == [1, 4, 0, 3, 5]
    assert drawn[5:] == [2, 6, 7]
    palette = plot.cluster_palette(labels)
    badges = [patch for patch in panel(figure).patches if patch.get_gid() == "group"]
    assert [to_hex(badge.get_facecolor()) for badge in badges] == [palette[label] for label in (0, 1, 2, -1)]
    headings = [text.get_text() for text in panel(figure).texts if text.get_gid() == "group"]
    assert headings == [
        *("cluster 0: 2 channels", "cluster 1: 2 channels", "cluster 2: 1 channel", "noise: 1 channel"),
        "in no cluster: 2 channels",
    ]
    assert "cluster by cluster" in " ".join(words(figure))


def test_clusters_color_the_numbers_in_any_order(layers):
    layer = layers["conv1"]
    figure = plot.channel_grid(layer, channels=[5, 0], clusters=clusters_of(layer, [1, 0, 1, 1, 0, 2]))
    assert [word for word in words(figure) if word.isdigit()] == ["5", "0"]


def scores_of(clusters, values):
    """Return scores of one component of the rows of clusters."""
    about = {"rows": clusters.rows, "layer": clusters.layer, "view": clusters.view, "fit": clusters.fit}
    values = np.array(values, dtype=np.float64)[:, None]
    return Scores(**about, values=values, singular_values=np.ones(1), total_variance=1.0, n_features=9, method="gram")


@pytest.mark.slow
def test_the_representative_of_each_cluster_is_framed_and_comes_first(layers):
    clusters = clusters_of(layers["conv1"], [1, 0, -1, 1, 0, 1, 2])
    # of cluster 1 the mean of 0, 10 and 4 is nearest to channel 5; of two members both are as near, and the first leads
    scores = scores_of(clusters, [0, 3, 0, 10, 7, 4, 5])
    figure = plot.channel_grid(layers["conv1"], channels=range(7), order="cluster", clusters=clusters, scores=scores)
    assert [int(word) for word in words(figure) if word.isdigit()] == [1, 4, 5, 0, 3, 6, 2]
    frames = [patch for patch in panel(figure).patches if patch.get_gid() == "representative"]
    palette = plot.cluster_palette([0, 1, 2])
    assert [to_hex(frame.get_edgecolor()) for frame in frames[1::2]] == [palette[label] for label in (0, 1, 2)]
    bold = [text.get_text() for text in panel(figure).texts if text.get_fontweight() == "bold"]
    assert bold == ["1", "5", "6"]
    assert any("Framed: the representative of its cluster" in word for word in words(figure))
    assert not any("Framed" in word for word in words(plot.channel_grid(layers["conv1"], clusters=clusters)))


def test_groups_stand_apart_and_within_the_sheet(layers):
    labels = np.arange(64) % 5
    labels[60:] = [5, 6, 7, 8]
    clusters = clusters_of(layers["conv1"], labels)
    figure = plot.channel_grid(layers["conv1"], order="cluster", clusters=clusters)
    ax = panel(figure)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert all(not one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])
    corners = {(round(image.get_extent()[0], 3), round(image.get_extent()[3], 3)) for image in ax.images}
    assert len(corners) == len(ax.images) == 64 - len(hatched(figure))
    right, low = ax.get_xlim()[1], ax.get_ylim()[0]
    assert all(image.get_extent()[1] <= right and image.get_extent()[2] <= low + 1e-9 for image in ax.images)


def test_scores_of_something_else_are_refused(layers):
    clusters = clusters_of(layers["conv1"], [1, 0])
    with pytest.raises(ValueError, match="received scores without clusters"):
        plot.channel_grid(layers["conv1"], scores=scores_of(clusters, [0, 1]))
    other = scores_of(clusters_of(layers["conv1"], [1, 0, 0]), [0, 1, 2])
    with pytest.raises(ValueError, match="expected the 3 rows of 'conv1'"):
        plot.channel_grid(layers["conv1"], clusters=clusters, scores=other)


def test_clusters_of_something_else_are_refused(layers):
    layer = layers["conv1"]
    with pytest.raises(ValueError, match="without clusters"):
        plot.channel_grid(layer, order="cluster")
    with pytest.raises(ValueError, match="received clusters of the channel view of 'layer1'; expected some"):
        plot.channel_grid(layer, clusters=clusters_of(layer, [0], name="layer1"))
    with pytest.raises(ValueError, match=r"of snapshots \[2\], and not of snapshot 8"):
        plot.channel_grid(layer, clusters=clusters_of(layer, [0, 1], snapshot=2))


@pytest.mark.parametrize(
    "draw",
    [
        plot.channel_grid,
        plot.channel_evolution,
        plot.statistics,
        plot.animate_grid,
        lambda name: plot.top_images(None, name),
        lambda name: plot.position_clusters(None, name),
    ],
)
def test_a_name_is_no_layer(draw):
    with pytest.raises(TypeError, match="received 'conv1'; expected a layer of a run"):
        draw("conv1")
