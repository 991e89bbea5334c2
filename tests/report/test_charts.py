from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fmcluster as fm
from fmcluster.analysis import Faithfulness
from fmcluster.plot import cluster_palette
from fmcluster.report.charts import similarity_charts
from fmcluster.report.charts._charts import metric_chart
from fmcluster.report.charts._flow import APART, MOST_NAMES, _largest_apart
from fmcluster.report.content._words import faithfulness_line, row_meaning, row_noun
from tests.report.small_report import Written, record


@pytest.fixture
def charts(written: Written) -> dict[str, Any]:
    found: dict[str, Any] = written.parsed.data["layers"][0]
    return found


@pytest.mark.slow
def test_the_map_has_the_positions_and_colors_of_the_results(
    charts: dict[str, Any], recomputed: tuple[Any, Any, Any]
) -> None:
    embedding, clusters, _ = recomputed
    chart = charts["embedding"]
    assert chart["titles"] == ["epoch 0", "epoch 1, step 4", "epoch 1, step 8"]
    assert chart["names"] == [f"channel {i}" for i in range(10)]
    palette = cluster_palette(clusters.labels)
    assert {int(label): color for label, color in chart["palette"].items()} == palette
    positions, labels = embedding.by_snapshot(embedding.values), clusters.by_snapshot(clusters.labels)
    for frame, at, of in zip(chart["frames"], positions, labels, strict=True):
        np.testing.assert_allclose(np.stack([frame["x"], frame["y"]], axis=1), at, rtol=1e-5)
        assert frame["cluster"] == of.tolist()
    layout = chart["figure"]["layout"]
    for axis, values in (("xaxis", embedding.values[:, 0]), ("yaxis", embedding.values[:, 1])):
        low, high = layout[axis]["range"]
        assert low < values.min()
        assert high > values.max()


def test_each_row_has_one_path_in_the_color_of_its_end_with_a_start_and_an_end(
    charts: dict[str, Any], recomputed: tuple[Any, Any, Any]
) -> None:
    _, clusters, _ = recomputed
    last, palette = clusters.by_snapshot(clusters.labels)[-1], cluster_palette(clusters.labels)
    traces, traced = charts["trajectories"]["figure"]["data"], charts["trajectories"]["traced"]
    paths, ends = [], {0: [], 2: []}
    for trace, which in zip(traces, traced, strict=True):
        if which["at"] is None:
            assert trace["mode"] == "lines"
            assert {trace["line"]["color"]} == {palette[int(last[row])] for row in which["rows"]}
            paths += which["rows"]
        else:
            assert trace["marker"]["symbol"] == ("circle" if which["at"] else "circle-open")
            assert trace["marker"]["color"] == [palette[int(last[row])] for row in which["rows"]]
            ends[which["at"]] += which["rows"]
    assert sorted(paths) == sorted(ends[0]) == sorted(ends[2]) == list(range(10))


def test_the_flow_is_that_of_the_history_in_the_same_colors(
    charts: dict[str, Any], recomputed: tuple[Any, Any, Any]
) -> None:
    _, clusters, history = recomputed
    flow, palette = charts["flow"]["figure"]["data"][0], cluster_palette(clusters.labels)
    nodes = [(about[2], about[0]) for about in flow["node"]["customdata"]]
    titles = charts["embedding"]["titles"]
    shown = {
        (titles.index(nodes[a][0]), nodes[a][1], nodes[b][1]): count
        for a, b, count in zip(flow["link"]["source"], flow["link"]["target"], flow["link"]["value"], strict=True)
    }
    expected = {
        (row.from_snapshot, f"cluster {row.from_cluster}", f"cluster {row.to_cluster}"): row.count_
        for row in history.flow.rename(columns={"count": "count_"}).itertuples()
    }
    assert shown == expected
    for (_, name), color in zip(nodes, flow["node"]["color"], strict=True):
        assert color == palette[int(name.removeprefix("cluster "))]
    # Who cannot point at a band chooses it by its name: those who move, with how many they are.
    bands = {name: charts["flow"]["moves"][number] for number, name in charts["flow"]["bands"]}
    assert len(bands) == sum(here != there for _, _, here, there in charts["flow"]["moves"])
    for name, (source, target, here, there) in bands.items():
        count = shown[source, f"cluster {here}", f"cluster {there}"]
        assert name == f"{titles[source]} to {titles[target]}: cluster {here} to cluster {there} ({count})"
    # Clusters stand in the same order in each column, without covering one another.
    places = pd.DataFrame({"title": [t for t, _ in nodes], "name": [n for _, n in nodes], "y": flow["node"]["y"]})
    for _, column in places.groupby("title"):
        assert column.sort_values("y")["name"].tolist() == sorted(column["name"])
    under = [note["text"] for note in charts["flow"]["figure"]["layout"]["annotations"] if note["y"] == 0]
    steps = zip(history.steps["churn"], history.steps["churn_noise_floor_limit"], strict=True)
    assert under == ["moved", *(f"({share:.0%})" if share <= limit else f"{share:.0%}" for share, limit in steps)]


def test_the_tables_count_what_the_history_says(written: Written, recomputed: tuple[Any, Any, Any]) -> None:
    _, clusters, history = recomputed
    text = written.parsed.text
    labels = clusters.by_snapshot(clusters.labels)
    for label in clusters.names:
        moved = history.frame[history.frame["moved"]]
        stayed = ((labels[0] == label) & (labels[-1] == label)).sum()
        arrived, left = (moved["to_cluster"] == label).sum(), (moved["from_cluster"] == label).sum()
        sizes = history.sizes[label]
        assert f"cluster {label} {sizes.iloc[0]} {sizes.iloc[-1]} {stayed} {arrived} {left} channel" in text


def test_metrics_lie_over_steps_and_accuracy_is_in_percent(written: Written) -> None:
    accuracy, loss = written.parsed.data["metrics"]
    line = accuracy["figure"]["data"][0]
    assert line["x"] == [0, 4, 8]
    assert line["y"] == [25, 50, 75]
    assert accuracy["figure"]["layout"]["xaxis"]["tickvals"] == [0, 8]
    np.testing.assert_allclose(loss["figure"]["data"][0]["y"], [1, 0.5, 1 / 3], rtol=1e-5)


def test_a_metric_may_miss_values_and_steps_may_repeat() -> None:
    frame = pd.DataFrame({"snapshot": [0, 1, 2], "epoch": [0, 1, 1], "step": [0, 0, 0], "loss": [1.0, np.nan, 3.0]})
    figure = metric_chart(frame, column="loss")["figure"]
    assert figure["data"][0]["x"] == [0, 1, 2]
    assert figure["data"][0]["y"] == [1.0, None, 3.0]
    assert figure["data"][0]["connectgaps"]
    assert not metric_chart(frame.replace(np.nan, np.inf), column="loss")["figure"]["data"][0]["connectgaps"]


def test_hostile_names_are_escaped_inside_the_charts(written: Written) -> None:
    names = [charts["embedding"]["names"] for charts in written.parsed.data["layers"]]
    assert all("<" not in name and unescape(name) == name for group in names for name in group)


def test_words_follow_the_numbers() -> None:
    good = faithfulness_line(Faithfulness(0.87, 0.06, 15, 64, 0.99, 0.9, 0.9))
    bad = faithfulness_line(Faithfulness(0.07, 0.06, 15, 64, 0.5, 0.1, 0.1))
    none = faithfulness_line(Faithfulness(float("nan"), float("nan"), 1, 64, float("nan"), float("nan"), float("nan")))
    assert "really are similar" in good
    assert "says how much it changed" in good
    assert bad.count("do not read") == 2
    assert "too few points" in none
    assert "not available" in none


def test_words_for_the_rows_of_a_view() -> None:
    assert [row_noun(view) for view in ("feature_map", "n c h w -> h (n c w)")] == ["feature maps", "rows"]
    assert row_meaning("sample") == (
        "one image as the layer sees it. Images that lie together are similar to the network"
    )
    assert row_meaning("n c h w -> h (n c w)") == "one row of the view n c h w -> h (n c w)"


def test_the_facade_has_the_report() -> None:
    from fmcluster import report

    assert fm.write_report is report.write_report
    assert "write_report" in dir(report)


def test_of_more_clusters_than_fit_beside_a_flow_the_largest_that_are_apart_are_named() -> None:
    down = [number / 64 for number in range(64)]
    nodes = [(number, number) for number in range(64)]
    named = _largest_apart(nodes, down, sizes=[1.0] * 40 + [5.0] + [1.0] * 23)
    assert (40, 40) in named
    assert 12 <= len(named) <= MOST_NAMES
    assert np.diff([down[number] for _, number in named]).min() >= APART


def test_the_similarity_of_snapshots_opens_with_the_layer_that_is_asked_for(tmp_path: Path) -> None:
    found = fm.similarity(record(tmp_path))
    names = list(dict.fromkeys(found.rows["layer"]))
    charts = similarity_charts(found, titles=["a", "b", "c"], opened=names[-1])["snapshots"]
    assert charts["first"] == len(names) - 1
    assert charts["figure"]["data"][0]["z"] == charts["stages"][-1]
    assert charts["digits"] == [3 if start >= 0.9 else 2 for start in charts["starts"]]
