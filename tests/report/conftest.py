"""One small run and its report, made once."""

import os
from typing import Any

import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

import fmcluster as fm
from tests.report.small_report import Parsed, Written, record


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: os.fstat(handle))
        run = record(folder)
    stages: list[tuple[str, int, int]] = []
    path = fm.write_report(
        run,
        folder / "report.html",
        n_clusters=3,
        reducer=PCA(2, random_state=0),
        progress=lambda *stage: stages.append(stage),
    )
    return Written(run, path, Parsed(path.read_text(encoding="utf-8")), stages)


@pytest.fixture(scope="session")
def recomputed(written: Written) -> tuple[Any, Any, Any]:
    """The map, the clusters and their history of the first layer, by the public verbs."""
    scores = fm.pca(written.run["conv1"].vectors("channel"))
    clusters = fm.cluster(scores, KMeans(3, random_state=0, n_init=4))
    return fm.embed(scores, PCA(2, random_state=0)), clusters, fm.track(clusters)
