"""Commands on a Dask cluster: the same tables, few bytes to the client, and a worker that sees no run says so."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fmcluster as fm
from fmcluster.analysis import pca
from fmcluster.analysis.diagnosis._measures import LayerEvidence
from fmcluster.cli._scheduler import workers_of
from tests.cli.test_cli import call

distributed = pytest.importorskip("distributed", reason="the extra [dask] is not installed")


@pytest.fixture(scope="module")
def address():
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 24, 3), nn.ReLU(), nn.Conv2d(24, 8, 3))
    images = torch.randn(48, 3, 12, 12)
    for name in ("run", "other"):
        with fm.Recorder(model, folder / f"{name}.zarr", probe=[(x, k % 2) for k, x in enumerate(images)]) as recorder:
            for epoch in range(4):
                recorder.snapshot(epoch=epoch)
                for parameter in model.parameters():
                    parameter.data += 0.05 * torch.randn_like(parameter)
    return folder


@pytest.mark.slow
def test_commands_give_on_a_cluster_what_they_give_here(address, folder, monkeypatch, capsys):
    """The run is named by a relative path, which the workers, in folders of their own, could not open."""
    monkeypatch.chdir(folder)
    for arguments in (["analyze", "run.zarr", "--layer", "0", "--clusters", "2"], ["diagnose", "run.zarr"]):
        assert call(*arguments, "-o", f"{arguments[0]}-here", monkeypatch=monkeypatch) in (0, None)
        for results in folder.glob("*.results/*.npz"):
            results.unlink()
        there = [*arguments, "-o", f"{arguments[0]}-there", "--scheduler", address]
        assert call(*there, monkeypatch=monkeypatch) in (0, None), capsys.readouterr().err
        tables = sorted(path.name for path in Path(f"{arguments[0]}-here").glob("*.csv"))
        assert tables
        for table in tables:
            here, there = (Path(f"{arguments[0]}-{end}", table).read_text() for end in ("here", "there"))
            assert len(here.splitlines()) == len(there.splitlines()), table
    assert call("compare", "run.zarr", "other.zarr", "--scheduler", address, monkeypatch=monkeypatch) in (0, None)
    assert call("report", "run.zarr", "--layer", "0", "--scheduler", address, monkeypatch=monkeypatch) in (0, None)
    assert (folder / "comparison.html").stat().st_size > 10_000 < (folder / "report.html").stat().st_size


@pytest.mark.slow
def test_the_client_gets_at_most_twice_the_result(address, folder, monkeypatch):
    """Each of the groups that the workers do sent its whole matrix: nine times the result in the case at hand."""
    monkeypatch.setattr("fmcluster.analysis.components._plan_reading.BLOCK_BYTES", 20_000)
    came: list[int] = []
    gather = distributed.Client._gather

    async def counted(self, futures, *args, **how):
        found = await gather(self, futures, *args, **how)
        came.append(sum(np.asarray(each).nbytes for each in found))
        return found

    monkeypatch.setattr(distributed.Client, "_gather", counted)
    vectors = fm.open_run(folder / "run.zarr")["0"].vectors("channel")
    with distributed.Client(address, set_as_default=False) as client:
        there = pca(vectors, n_components=5, executor=client.get_executor())
    assert there.method == "gram"
    assert 0 < sum(came) <= 2 * 8 * vectors.shape[0] ** 2
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(3) as threads:
        np.testing.assert_array_equal(pca(vectors, n_components=5, executor=threads).values, there.values)


@pytest.mark.slow
def test_what_is_compared_stays_on_the_workers(address, folder, monkeypatch):
    came: list[LayerEvidence] = []
    gather = distributed.Client._gather

    async def looked_at(self, futures, *args, **how):
        found = await gather(self, futures, *args, **how)
        came.extend(each for each in found if isinstance(each, LayerEvidence))
        return found

    monkeypatch.setattr(distributed.Client, "_gather", looked_at)
    run = fm.open_run(folder / "run.zarr")
    with distributed.Client(address, set_as_default=False) as client:
        there = fm.diagnose(run, executor=client.get_executor()).similarity
    assert [each.name for each in came] == run.layers
    assert not any(each.kernels for each in came)
    np.testing.assert_array_equal(there.values, fm.diagnose(run).similarity.values)


@pytest.mark.slow
def test_a_scheduler_that_ends_before_the_work_is_told():
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        there = cluster.scheduler_address
        with pytest.raises(ConnectionError, match="no longer answers"), workers_of(there) as executor:
            executor._client.close()
            raise RuntimeError("ConnectionPool closing.")
        with pytest.raises(RuntimeError, match="another"), workers_of(there):
            raise RuntimeError("another")


@pytest.mark.slow
def test_a_worker_that_does_not_see_the_run_says_so(address, folder, tmp_path):
    """It has another machine's folders: here, the run was moved after it was opened."""
    import shutil

    shutil.copytree(folder / "run.zarr", tmp_path / "run.zarr")
    vectors = fm.open_run(tmp_path / "run.zarr")["0"].vectors("channel")
    (tmp_path / "run.zarr").rename(tmp_path / "elsewhere.zarr")
    with distributed.Client(address, set_as_default=False) as client, pytest.raises(fm.StoreError) as caught:
        pca(vectors, n_components=2, executor=client.get_executor())
    assert "Workers have to see a run at the path that it was opened at" in str(caught.value)
    assert "damaged" not in str(caught.value)


def pretend(real, there):
    """On a worker, let `version` answer for another installation; called again, let it be what it was."""
    import importlib.metadata as metadata

    if not real:
        metadata.true_version = metadata.version
        metadata.version = lambda name: there or metadata.Distribution.from_name(" ")
    else:
        metadata.version = metadata.true_version


@pytest.mark.slow
@pytest.mark.parametrize(("there", "has"), [("9.9.9", "fmcluster 9.9.9"), ("", "no fmcluster")])
def test_a_worker_of_another_version_is_refused_and_not_waited_for(there, has, address, folder):
    """One that lacks a module that it is handed a function of would end, and its command wait forever."""
    vectors = fm.open_run(folder / "run.zarr")["0"].vectors("channel")
    with distributed.Client(address, set_as_default=False) as client:
        odd = max(client.nthreads())
        client.run(pretend, False, there, workers=[odd])
        try:
            with pytest.raises(ValueError, match=f"the Dask worker {odd} has {has}, and this process fmcluster "):
                pca(vectors, n_components=2, executor=client.get_executor())
        finally:
            client.run(pretend, True, there, workers=[odd])
    with distributed.Client(address, set_as_default=False) as client:
        assert pca(vectors, n_components=2, executor=client.get_executor()).values.shape == (vectors.shape[0], 2)


@pytest.mark.slow
def test_no_scheduler_is_one_line(folder, monkeypatch, capsys):
    from fmcluster.cli import _scheduler

    monkeypatch.setattr(_scheduler, "_SECONDS", 1)
    code = call("diagnose", str(folder / "run.zarr"), "--scheduler", "tcp://127.0.0.1:9", monkeypatch=monkeypatch)
    told = capsys.readouterr().err
    assert code == 2
    assert "there is no Dask scheduler at tcp://127.0.0.1:9" in told
    assert len(told.strip().splitlines()) == 1
