"""What results say of themselves in a notebook: a line, however much they hold."""

from dataclasses import dataclass, field, fields, is_dataclass

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans

import fmcluster.analysis as analysis
import fmcluster.decide as decide
from fmcluster.analysis import Summarized, cluster, pca

RESULTS = [
    each
    for room in (analysis, decide)
    for each in (getattr(room, name) for name in room.__all__)
    if isinstance(each, type) and is_dataclass(each) and issubclass(each, Summarized)
]


@dataclass(repr=False)
class Found(Summarized):
    name: str
    values: np.ndarray
    frame: pd.DataFrame
    scores: dict[str, int]
    numbers: tuple[int, ...]
    share: float | None
    hidden: int = field(default=0, repr=False)


def test_each_field_is_told_by_what_it_is_or_how_large():
    frame = pd.DataFrame({"a": range(1234)})
    found = Found("conv1", np.zeros((2, 3, 4000)), frame, {"conv1": 1, "fc": 2}, (1, 2), None)
    told = "name='conv1', values=<2 x 3 x 4,000>, frame=<1,234 rows>, scores=<conv1, fc>, numbers=(1, 2), share=None"
    assert repr(found) == f"Found({told})"


def test_what_is_long_is_counted():
    found = Found("x" * 100, np.zeros(3), pd.Series([1]), dict.fromkeys(range(50), 0), tuple(range(50)), 0.5)
    told = "name=<str>, values=<3>, frame=<1 rows>, scores=<50 items>, numbers=<50 items>, share=0.5"
    assert repr(found) == f"Found({told})"


def test_a_result_within_another_is_named(vectors_of):
    maps = np.random.default_rng(0).normal(size=(2, 20, 6, 4, 4)).astype(np.float16)
    scores = pca(vectors_of(maps), n_components=3)
    clusters = cluster(scores, KMeans(2, n_init=1, random_state=0))
    for each in (scores, clusters):
        assert repr(each).startswith(f"{type(each).__name__}(")
        assert len(repr(each)) < 400
    assert "scores=<Scores>" in repr(Found("a", np.zeros(1), pd.DataFrame(), {}, (), scores)).replace("share", "scores")


@pytest.mark.parametrize("result", RESULTS, ids=lambda each: each.__name__)
def test_no_result_prints_its_tables(result):
    assert result.__repr__ is Summarized.__repr__
    assert fields(result)


def test_the_results_that_hold_tables_are_among_them():
    names = {each.__name__ for each in RESULTS}
    assert names >= {"Scores", "Clusters", "Embedding", "History", "Findings", "Similarity", "Comparison", "Damage"}
