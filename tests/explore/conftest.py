"""The run that is explored."""

from pathlib import Path

import pytest
from tests.explore.explored_run import record

from fmcluster.store import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return record(tmp_path / "run.zarr")
