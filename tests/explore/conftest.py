"""The run that is explored."""

from pathlib import Path

import pytest

from fmcluster.store import Run
from tests.explore.explored_run import record


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return record(tmp_path / "run.zarr")
