"""Every verb that takes an executor gives the same numbers on threads, processes and a Dask cluster."""

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from torch import manual_seed, nn, optim, randn

import fmcluster as fm
from fmcluster import analysis
from fmcluster.analysis._results import Scores
from fmcluster.store import Run

VERBS = {
    "similarity": lambda run, executor: fm.similarity(run, executor=executor).values,
    "procrustes": lambda run, executor: fm.similarity(run, metric="procrustes", executor=executor).values,
    "svcca": lambda run, executor: fm.similarity(run, metric="svcca", layers=["0"], executor=executor).values,
    "top_images": lambda run, executor: fm.top_images(run["0"], k=3, executor=executor).frame,
    "diagnose": lambda run, executor: fm.diagnose(run, executor=executor).frame,
    "compare": lambda run, executor: fm.compare(run, run, executor=executor).frame,
    "cluster": lambda run, executor: (
        fm.cluster(scores_of(run), KMeans(2, random_state=0), fit="each", warm_start=False, executor=executor).labels
    ),
    "quality": lambda run, executor: (
        analysis.quality(
            fm.cluster(scores_of(run), KMeans(2, random_state=0)), scores_of(run), executor=executor
        ).values
    ),
    "choose_k": lambda run, executor: analysis.choose_k(scores_of(run), range(2, 4), executor=executor).frame,
    "stability": lambda run, executor: (
        analysis.stability(scores_of(run), KMeans(2, random_state=0), n_resamples=4, executor=executor).frame
    ),
    "noise_floor": lambda run, executor: (
        analysis.noise_floor(
            run["0"].vectors("channel"), KMeans(2, random_state=0), n_splits=2, executor=executor
        ).frame
    ),
}


def scores_of(run: Run) -> Scores:
    return fm.pca(run["0"].vectors("channel"), n_components=3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("runs") / "run.zarr"
    manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.Flatten(), nn.Linear(80, 2))
    images = randn(12, 3, 8, 8)
    probe = [(image, place % 2) for place, image in enumerate(images)]
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with fm.Recorder(model, path, layers="children", probe=probe) as recorder:
        for epoch in range(3):
            recorder.snapshot(epoch=epoch)
            loss = model(images).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return fm.open_run(path)


@pytest.mark.parametrize("verb", VERBS)
def test_numbers_do_not_depend_on_where_they_are_computed(verb, run, executor) -> None:
    here, there = VERBS[verb](run, None), VERBS[verb](run, executor)
    if isinstance(here, pd.DataFrame):
        pd.testing.assert_frame_equal(there, here, rtol=1e-6, atol=1e-9)
    else:
        np.testing.assert_allclose(there, here, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["similarity", "diagnose"])
def test_a_cluster_whose_workers_keep_what_is_compared_finds_the_same_bits(verb, run, cluster) -> None:
    here, there = (pd.DataFrame(VERBS[verb](run, where)) for where in (None, cluster))
    pd.testing.assert_frame_equal(there, here, check_exact=True)
