"""Questions and answers: what comes out is what the verbs return, one at a time, and a mistake is told."""

from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import AgglomerativeClustering

import fmcluster as fm
from fmcluster.explore._page import about
from fmcluster.explore._questions import CLUSTERERS, ContentOf, OverviewOf, TopImagesOf
from fmcluster.explore._worker import Worker
from fmcluster.store import Run
from tests.explore.explored_run import record
from tests.report.test_diverged import record as record_diverging

pytestmark = pytest.mark.slow

LONG = 120


def test_a_map_is_that_of_the_verbs(run: Run) -> None:
    found = Worker(run)
    found.ask(ContentOf("2", n_clusters=3))
    content = found.wait(ContentOf("2", n_clusters=3), seconds=LONG)
    scores = fm.pca(run["2"].vectors("channel"))
    np.testing.assert_allclose(content.scores.values, scores.values, atol=1e-5)
    np.testing.assert_array_equal(content.embedding.values, fm.embed(content.scores, random_state=0).values)
    assert content.clusters.n_clusters == 3
    assert found.doing() == ""


@pytest.mark.parametrize("clusterer", CLUSTERERS)
@pytest.mark.parametrize("fit", ["pooled", "each"])
def test_every_clusterer_answers(run: Run, clusterer: str, fit: str) -> None:
    question = ContentOf("2", clusterer=clusterer, n_clusters=3, fit=fit)
    said: list[str] = []
    content = question.answer(run, said.append)
    assert len(content.labels) == 3
    assert content.history.clusters is content.clusters
    assert content.clusters.fit == fit
    if clusterer == "AgglomerativeClustering" and fit == "pooled":
        expected = fm.cluster(content.scores, AgglomerativeClustering(3)).labels
        np.testing.assert_array_equal(content.clusters.labels, expected)


def test_more_rows_than_asked_for_are_drawn_from(run: Run) -> None:
    content = ContentOf("0", view="position", n_rows=50).answer(run, print)
    assert content.n_rows == 50
    assert content.rows_in_view == 12 * 16 * 16


def test_what_cannot_be_answered_is_told_and_the_next_question_is_answered(run: Run) -> None:
    worker, wrong = Worker(run), ContentOf("0", clusterer="nonsense")
    worker.ask(wrong)
    assert worker.wait(wrong, seconds=LONG) is None
    assert worker.refusal(wrong).startswith("ValueError: received the clusterer 'nonsense'; expected one of KMeans")
    worker.ask(OverviewOf())
    assert worker.wait(OverviewOf(), seconds=LONG) is not None
    assert worker.refusal(OverviewOf()) == ""


@dataclass(frozen=True)
class Slow:
    """A question whose answer waits to be let go."""

    name: str
    begun: Event
    go: Event

    def answer(self, run: Run, announce: Any) -> str:
        announce(f"thinking of {self.name}")
        self.begun.set()
        assert self.go.wait(LONG)
        return self.name


def test_of_those_that_wait_only_the_newest_is_answered(run: Run) -> None:
    worker = Worker(run)
    first, second, third = (Slow(name, Event(), Event()) for name in ("first", "second", "third"))
    worker.ask(first)
    assert first.begun.wait(LONG)
    assert worker.doing() == "thinking of first"
    worker.ask(second)
    worker.ask(third)
    for each in (first, second, third):
        each.go.set()
    assert worker.wait(third, seconds=LONG) == "third"
    assert worker.answer(first) == "first"
    assert worker.answer(second) is None
    assert not second.begun.is_set()


def test_the_answer_is_that_of_top_images(run: Run) -> None:
    found = TopImagesOf("0").answer(run, print)
    np.testing.assert_array_equal(found.samples, fm.top_images(run["0"], k=5, snapshots=[0, 2]).samples)


def test_a_run_that_grows_is_opened_again_when_asked(tmp_path: Path) -> None:
    worker = Worker(record(tmp_path / "run.zarr", snapshots=2))
    assert worker.newer() == 0
    record(tmp_path / "run.zarr", snapshots=1, mode="a", start=2)
    assert worker.newer() == 1
    assert len(worker.run) == 2
    worker.reopen()
    assert (len(worker.run), worker.newer()) == (3, 0)


def test_snapshots_that_are_not_finite_are_left_out_and_named(tmp_path: Path) -> None:
    diverging = record_diverging(tmp_path / "run.zarr", broken=(1,))
    worker = Worker(diverging)
    assert worker.shown["snapshot"].tolist() == [0, 2, 3]
    worker.ask(ContentOf("2", n_clusters=2))
    content = worker.wait(ContentOf("2", n_clusters=2), seconds=LONG)
    assert content.titles == ["epoch 0", "epoch 2", "epoch 3"]
    assert np.isfinite(content.embedding.values).all()
    assert TopImagesOf("2").answer(diverging, lambda _said: None).snapshots["snapshot"].tolist() == [0, 3]
    assert about(diverging, worker.shown).endswith("NaN or infinite values: epoch 1: 1 of 3 layers, the first is 2")
    never = record_diverging(tmp_path / "never.zarr", broken=(0, 1, 2, 3))
    assert Worker(never).shown["snapshot"].tolist() == [0, 1, 2, 3]
    said = "images. Left out: layer 2, which gave NaN or infinite values at every snapshot"
    assert about(never, Worker(never).shown).partition(", in at")[0].endswith(said)
    assert ContentOf("1", n_clusters=2).answer(never, print).titles == [f"epoch {epoch}" for epoch in range(4)]
    assert OverviewOf().answer(never, print).findings.not_finite.layers["layer"].tolist() == ["2"]
