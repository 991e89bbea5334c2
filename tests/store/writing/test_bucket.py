"""A run that is recorded into an object store: the files of one in a folder, whatever the network or a kill does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fmcluster as fm
from fmcluster import StoreError
from fmcluster.errors import Unreachable
from fmcluster.store import RunWriter, missing_files, verify

pytest.importorskip("obstore")
pytest.importorskip("moto")
import obstore

from fmcluster.store.files import _bucket_lock
from tests.store.bucket import environment_of, expire, files_of, key_of, keys_of, objects_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("s3_environment"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


def test_the_objects_are_the_files_of_a_run_in_a_folder(s3_server, url, contents, reference, tmp_path):
    contents.record(url, mode="x")
    assert objects_of(s3_server, key_of(url)) == files_of(reference)
    run = fm.open_run(url)
    assert verify(run) == []
    assert missing_files(run) == []
    for spec in contents.SPECS:
        np.testing.assert_array_equal(run[spec.name].read(snapshot=1), contents.activation(spec, 1))
    assert list(tmp_path.iterdir()) == []  # nothing stays here
    assert keys_of(s3_server, key_of(url).rpartition("/")[0]) == sorted(
        f"run.zarr/{name}" for name in files_of(reference)
    )


def test_a_run_is_opened_in_two_requests_however_many_snapshots_it_has(s3_server, url, contents):
    contents.record(url, mode="x")
    s3_server.asked.clear()
    assert len(fm.open_run(url).snapshots) == 3
    assert [each.partition(" ")[0] for each in s3_server.asked] == ["HEAD", "GET"]


def test_what_was_committed_takes_no_room_here(url, contents):
    with RunWriter(url) as writer:
        writer.create(contents.SPECS, n_samples=contents.N_SAMPLES, shard_samples=contents.SHARD, kind="probe")
        for snapshot in range(3):
            contents.write_snapshot(writer, snapshot)
            maps = [file for file in writer.path.rglob("c.*") if "layers" in file.parts and file.stat().st_size > 0]
            assert {file.parent.name for file in maps} <= {"statistics", "gradient_statistics"}
            assert {int(file.name.split(".")[1]) for file in maps} == {snapshot}


@pytest.mark.parametrize("fault", [503, "lost"])
def test_requests_that_fail_once_are_made_again(fault, s3_server, url, contents, reference):
    for method, part in (
        ("PUT", "run.zarr.lock"),
        ("PUT", "zarr.json"),
        ("PUT", "activation/c.0.0"),
        ("PUT", "activation/c.1.1"),
        ("PUT", "run.zarr/zarr.json"),
        ("PUT", "run.zarr/zarr.json"),
        ("PUT", "checksums/c.2"),
    ):
        s3_server.plan.append((method, part, fault))
    contents.record(url, mode="x")
    assert len(s3_server.failed) == 7
    assert objects_of(s3_server, key_of(url)) == files_of(reference)


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        ("activation/c.1.1", 500),
        ("checksums/c.1", "lost"),
        ("run.zarr/zarr.json", 500),
    ],
)
def test_a_snapshot_whose_upload_breaks_is_left_out(part, fault, impatient, s3_server, url, contents, reference):
    with RunWriter(url) as writer:
        writer.create(contents.SPECS, n_samples=contents.N_SAMPLES, shard_samples=contents.SHARD, kind="probe")
        contents.write_snapshot(writer, 0)
        s3_server.plan.append(("PUT", part, fault))
        with pytest.raises(Unreachable, match=f"{url} cannot be reached"):
            contents.write_snapshot(writer, 1)
        assert s3_server.failed == [("PUT", part, fault)]
        writer.discard()
        assert (len(fm.open_run(url)), writer.n_snapshots) == (1, 1)
        contents.write_snapshot(writer, 1)
        assert verify(fm.open_run(url)) == []
        contents.write_snapshot(writer, 2)
    assert objects_of(s3_server, key_of(url)) == files_of(reference)


def test_a_root_whose_answer_is_lost_is_committed(impatient, s3_server, url, contents, reference):
    with RunWriter(url) as writer:
        writer.create(contents.SPECS, n_samples=contents.N_SAMPLES, shard_samples=contents.SHARD, kind="probe")
        for snapshot in range(3):
            s3_server.plan.append(("PUT", "run.zarr/zarr.json", "lost"))
            contents.write_snapshot(writer, snapshot)
    assert len(s3_server.failed) == 3
    assert objects_of(s3_server, key_of(url)) == files_of(reference)


@pytest.mark.parametrize("then", ["discard", "close"])
def test_a_root_that_lies_there_though_nobody_knew_is_taken_back(then, impatient, s3_server, url, contents):
    with RunWriter(url) as writer:
        writer.create(contents.SPECS, n_samples=contents.N_SAMPLES, shard_samples=contents.SHARD, kind="probe")
        contents.write_snapshot(writer, 0)
        s3_server.plan += [("PUT", "run.zarr/zarr.json", "lost"), ("GET", "run.zarr/zarr.json", 500)]
        with pytest.raises(Unreachable):
            contents.write_snapshot(writer, 1)
        assert len(fm.open_run(url)) == 2  # it was lost for the writer alone, which says that it is left out
        if then == "discard":
            writer.discard()
            assert len(fm.open_run(url)) == 1
    run = fm.open_run(url)
    assert len(run) == 1
    assert verify(run) == []
    with RunWriter(url, mode="a") as writer:
        writer.tidy()
        contents.write_snapshot(writer, 1)
    assert verify(fm.open_run(url)) == []


MOMENTS = [
    ("put", 60),
    ("after put", "root", 0),
    ("after put", "root", 1),
    ("put", "root", 2),
    ("put", "checksums/c.2", 0),
    ("after put", "root", 3),
]


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: "-".join(map(str, moment)).replace("/", "-"))
def test_killed_at_a_request(moment, s3_server, url, contents, reference, killed_writer, monkeypatch):
    """Readers see whole snapshots; once the lock has expired, the run is resumed, and equal to an undisturbed one."""
    kind, at = moment[0], moment[1]
    if len(moment) == 3:
        events = killed_writer(f"{url}.whole", mode="x", environment=environment_of(s3_server))["events"]
        what = {"root": "zarr.json"}.get(moment[1], moment[1])
        same = [number for number, each in enumerate(e for e in events if e[0] == kind) if each[1] == what]
        at = same[moment[2]]
    answer = killed_writer(url, mode="x", kill_at=(kind, at), environment=environment_of(s3_server))
    assert answer["signal"] == -9
    roots = sum(event == ["after put", "zarr.json"] for event in answer["events"]) + (
        moment[:2] == ("after put", "root")
    )
    n_whole = max(0, roots - 2)  # before the first, the run is laid out
    if roots >= 2:
        run = fm.open_run(url)
        assert len(run) == n_whole
        assert verify(run) == []
    if moment == MOMENTS[0]:  # this machine knows that the process has ended
        contents.record(url, mode="a")
        assert objects_of(s3_server, key_of(url)) == files_of(reference)
        return
    monkeypatch.setattr(_bucket_lock, "_seen", lambda: "another machine")
    with pytest.raises(StoreError, match=r"is being written by another process \(process \d+ on .*5 minutes"):
        RunWriter(url, mode="a")
    expire(monkeypatch)
    contents.record(url, mode="a")
    assert objects_of(s3_server, key_of(url)) == files_of(reference)


def test_modes(s3_server, url, contents, reference):
    contents.record(url, mode="x", n_snapshots=1)
    with pytest.raises(FileExistsError, match=r'already holds a run\. Pass mode="a" to resume it'):
        RunWriter(url)
    contents.record(url, mode="w", n_snapshots=2)
    contents.record(f"{url}/", mode="a")
    assert objects_of(s3_server, key_of(url)) == files_of(reference)
    store = obstore.store.from_url("s3://bucket", client_options={"allow_http": "true"})
    obstore.put(store, f"{key_of(url)}.other/picture.png", b"mine")
    for mode in ("x", "a", "w"):
        with pytest.raises(FileExistsError, match="exists and is not a run of this package; it is left as it is"):
            RunWriter(f"{url}.other", mode=mode)
    assert keys_of(s3_server, f"{key_of(url)}.other") == ["picture.png"]
    obstore.put(store, f"{key_of(url)}/layers/notes.txt", b"mine")
    with pytest.raises(FileExistsError, match=r"none of a run's, layers/notes\.txt, which would be removed with it"):
        RunWriter(url, mode="w")
    assert len(fm.open_run(url)) == 3


def test_what_is_wrong_is_one_sentence(s3_server, contents, monkeypatch, impatient):
    with pytest.raises(ValueError, match="path is s3://bucket, a whole bucket; expected a folder in it, such as"):
        RunWriter("s3://bucket/")
    with pytest.raises(Unreachable, match=r"s3://nowhere/run\.zarr cannot be reached: there is no such bucket"):
        RunWriter("s3://nowhere/run.zarr")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(Unreachable, match="there are no credentials: set AWS_ACCESS_KEY_ID"):
        RunWriter("s3://bucket/run.zarr")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.bn(self.conv(x)).relu().mean((2, 3)))


def images(count=6):
    draw = torch.Generator().manual_seed(1)
    return [(torch.randn(3, 8, 8, generator=draw), number % 2) for number in range(count)]


def record(path, *, epochs, before=lambda _epoch: None, record=("activation",), **how):
    model = Net()
    loss = nn.functional.cross_entropy if "gradient" in record else None
    with fm.Recorder(model, path, layers="leaves", record=record, probe=images(), batch_size=4, **how) as recorder:
        for epoch in range(epochs):
            before(epoch)
            recorder.snapshot(epoch=epoch, loss=loss)
            recorder.flush()
            with torch.no_grad():
                model.conv.weight += 0.1


def test_a_recorder_records_what_it_records_into_a_folder(s3_server, url, tmp_path):
    for path in (tmp_path / "run.zarr", url):
        record(path, epochs=2, record=("activation", "gradient", "weight"))
    here, there = fm.open_run(tmp_path / "run.zarr"), fm.open_run(url)
    for name in here.layers:
        for epoch in here.epochs:
            np.testing.assert_array_equal(there[name].read(epoch=epoch), here[name].read(epoch=epoch))
            np.testing.assert_array_equal(there[name].gradient.read(epoch=epoch), here[name].gradient.read(epoch=epoch))
    changing = ("zarr.json", "checksums/")
    mine, other = objects_of(s3_server, key_of(url)), files_of(tmp_path / "run.zarr")
    assert {k: v for k, v in mine.items() if not k.startswith(changing)} == {
        k: v for k, v in other.items() if not k.startswith(changing)
    }
    assert verify(there) == []


def test_training_goes_on_without_the_snapshots_that_could_not_be_sent(s3_server, url, impatient):
    def break_one(epoch):
        if epoch == 1:
            s3_server.plan.append(("PUT", "activation/c.1", 500))

    with pytest.warns(UserWarning, match="cannot be reached.*Training goes on"):
        record(url, epochs=4, before=break_one, on_error="warn")
    run = fm.open_run(url)
    assert run.epochs in ([0, 2, 3], [0, 3])
    assert verify(run) == []
    assert "cannot be reached" in str(run.provenance[-1]["missing"][0]["reason"])


def test_a_recorder_begins_late_where_the_store_answers_late(s3_server, url, impatient):
    s3_server.plan.append(("GET", "run.zarr.lock", 500))
    with pytest.warns(UserWarning, match="Nothing was recorded. Every snapshot tries again"):
        record(url, epochs=3, on_error="warn")
    assert verify(fm.open_run(url)) == []
    assert fm.open_run(url).epochs


def test_batches_are_recorded_into_a_bucket(s3_server, url, tmp_path):
    for path in (tmp_path / "live.zarr", url):
        model, data = Net(), fm.with_index(images(8))
        loader = torch.utils.data.DataLoader(data, batch_size=4)
        with fm.BatchRecorder(model, Path(path), dataset=data, layers=["conv", "fc"]) as recorder:
            for epoch in range(2):
                with recorder.epoch(epoch):
                    for index, x, _ in loader:
                        with recorder.batch(index):
                            model(x)
    here, there = fm.open_run(tmp_path / "live.zarr"), fm.open_run(url)
    for epoch in (0, 1):
        np.testing.assert_array_equal(there["conv"].read(epoch=epoch), here["conv"].read(epoch=epoch))
    assert verify(there) == []
