"""The lock of a run in an object store: one writer at a time, whoever sleeps, is killed or comes late."""

import time

import pytest

import fmcluster as fm
from fmcluster import StoreError
from fmcluster.store import RunWriter

pytest.importorskip("obstore")
pytest.importorskip("moto")
import obstore

from fmcluster.store.files import _bucket_lock
from tests.store.bucket import expire, files_of, key_of, objects_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("s3_environment"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


def test_of_two_writers_one_goes_on(s3_server, url, contents, reference, monkeypatch):
    with RunWriter(url) as first:
        first.create(contents.SPECS, n_samples=contents.N_SAMPLES, shard_samples=contents.SHARD, kind="probe")
        contents.write_snapshot(first, 0)
        with pytest.raises(StoreError, match="is being written by another process"):
            RunWriter(url, mode="w")
        assert fm.open_run(url).is_being_written
        expire(monkeypatch)
        assert not fm.open_run(url).is_being_written
        with RunWriter(url, mode="a") as second:
            second.tidy()
            with pytest.raises(StoreError, match="is no longer this writer's: its lock was not renewed"):
                contents.write_snapshot(first, 1)
            contents.write_snapshot(second, 1)
            values = contents.activation(contents.SPECS[0], 2)[: contents.SHARD]
            with monkeypatch.context() as patch:
                patch.setattr(first.storage._lock, "check", lambda: None)  # it slept right after it looked
                with pytest.raises(StoreError, match="was written by another process meanwhile"):
                    first.write("conv1", offset=0, values=values)
            contents.write_snapshot(second, 2)
    assert not fm.open_run(url).is_being_written
    assert objects_of(s3_server, key_of(url)) == files_of(reference)


def test_the_lock_is_renewed_and_what_took_it_away_is_noticed(s3_server, url, contents, monkeypatch):
    monkeypatch.setattr(_bucket_lock, "_RENEWED", 0.05)
    with RunWriter(url) as writer:
        until = writer.storage._lock._until
        deadline = time.time() + 20
        while writer.storage._lock._until == until:
            assert time.time() < deadline
            time.sleep(0.01)
        store = obstore.store.from_url("s3://bucket", client_options={"allow_http": "true"})
        obstore.put(store, f"{key_of(url)}.lock", b"{}")
        while not writer.storage._lock._lost:
            assert time.time() < deadline
            time.sleep(0.01)
        with pytest.raises(StoreError, match="no longer this writer's"):
            writer.create(contents.SPECS, n_samples=5, shard_samples=2, kind="probe")
    obstore.delete(store, f"{key_of(url)}.lock")
