"""Last snapshot of an epoch, in the run, in results and in pictures."""

import pandas as pd
import pytest

from fmcluster.analysis import snapshot_of_epoch
from fmcluster.plot.drawing import find_snapshot
from fmcluster.store import last_of_epoch


@pytest.mark.parametrize(("epoch", "expected"), [(0, 0), (1, 3), (4, 4), (2, None), (-1, None)])
def test_an_epoch_means_the_last_of_its_snapshots_on_every_tier(epoch, expected):
    epochs = [0, 1, 1, 1, 4]
    table = pd.DataFrame({"snapshot": [10, 20, 30, 40, 50], "epoch": epochs})
    assert last_of_epoch(epochs, epoch) == expected
    if expected is None:
        with pytest.raises(ValueError, match="expected one of"):
            snapshot_of_epoch(table, epoch)
        with pytest.raises(ValueError, match="expected one of"):
            find_snapshot(table, epoch=epoch, snapshot=None)
        return
    assert snapshot_of_epoch(table, epoch) == table["snapshot"][expected]
    assert find_snapshot(table, epoch=epoch, snapshot=None) == expected
