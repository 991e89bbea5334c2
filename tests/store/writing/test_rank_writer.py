"""A rank writes its own shards into the snapshot that the run's one writer commits."""

import numpy as np
import pytest

from fmcluster import StoreError, open_run
from fmcluster.store import LayerSpec, RankWriter, RunWriter, verify

SPEC = LayerSpec("conv", (2, 3, 3), "float16", "Conv2d")


@pytest.fixture
def first(tmp_path):
    with RunWriter(tmp_path / "run.zarr") as writer:
        writer.create([SPEC], n_samples=8, shard_samples=4, kind="live")
        writer.describe_session({})
        yield writer


def values(number):
    return np.random.default_rng(number).normal(size=(4, 2, 3, 3)).astype(np.float16)


def commit(writer, epoch):
    writer.commit(
        epoch=epoch,
        step=epoch,
        index=np.arange(8),
        statistics={("conv", "activation"): np.zeros((6, 2))},
        metrics={},
        clipped={},
    )


def test_what_both_wrote_is_one_snapshot(first):
    other = RankWriter(first.path)
    other.join(first.digest)
    for epoch in range(2):
        first.write("conv", offset=0, values=values(epoch))
        other.write("conv", offset=4, values=values(10 + epoch))
        assert list(other.shards.written) == [f"layers/conv/activation/c.{epoch}.1.0.0.0"]
        first.shards.take_over(other.shards.written)
        commit(first, epoch)
        other.advance({"epoch": epoch, "step": epoch})
        assert not other.shards.written
    run = open_run(first.path)
    assert verify(run) == []
    for epoch in range(2):
        expected = np.concatenate([values(epoch), values(10 + epoch)])
        np.testing.assert_array_equal(run["conv"].read(epoch=epoch), expected)


def test_what_is_not_taken_over_is_missing(first):
    other = RankWriter(first.path)
    other.join(first.digest)
    first.write("conv", offset=0, values=values(0))
    other.write("conv", offset=4, values=values(1))
    with pytest.raises(StoreError, match=r"c\.0\.1\.0\.0\.0 was not written, or is gone"):
        commit(first, 0)


@pytest.mark.slow
@pytest.mark.usefixtures("s3_environment")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_ranks_record_into_one_bucket(url):
    with RunWriter(url) as first:
        first.create([SPEC], n_samples=8, shard_samples=4, kind="live")
        first.describe_session({})
        other = RankWriter(url)
        other.join(first.digest)
        for epoch in range(3):
            first.write("conv", offset=0, values=values(epoch))
            other.write("conv", offset=4, values=values(10 + epoch))
            if epoch == 1:  # the first has failed, and each removes its own
                other.discard()
                first.discard()
                with pytest.raises(StoreError, match="was not written, or is gone"):
                    commit(first, epoch)
                first.discard()
                first.write("conv", offset=0, values=values(epoch))
                other.write("conv", offset=4, values=values(10 + epoch))
            first.shards.take_over(other.shards.written)
            commit(first, epoch)
            other.advance({"epoch": epoch, "step": epoch})
        other.close()
    run = open_run(url)
    assert verify(run) == []
    for epoch in range(3):
        expected = np.concatenate([values(epoch), values(10 + epoch)])
        np.testing.assert_array_equal(run["conv"].read(epoch=epoch), expected)


def test_what_a_rank_discards_is_gone_and_nothing_else(first):
    other = RankWriter(first.path)
    other.join(first.digest)
    first.write("conv", offset=0, values=values(0))
    other.write("conv", offset=4, values=values(1))
    other.discard()
    assert [file.name for file in (first.path / "layers/conv/activation").glob("c.*")] == ["c.0.0.0.0.0"]
    other.replace_root()
    other.close()
    assert open_run(first.path).epochs == []


def test_a_folder_that_is_not_shared(first, tmp_path):
    with pytest.raises(StoreError, match=r"this rank sees no run at .*elsewhere.* one folder that all of them see"):
        RankWriter(tmp_path / "elsewhere.zarr").join(first.digest)
    with pytest.raises(StoreError, match="this rank sees another run at"):
        RankWriter(first.path).join("0" * 64)
