"""Two small runs for all tests of the exports."""

import pytest

from fmcluster.store import Run
from tests.export.exported_run import record


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return record(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="session")
def short(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of one snapshot, of which there is little to draw."""
    return record(tmp_path_factory.mktemp("short"), steps=(0,))
