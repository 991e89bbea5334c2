"""Ranks of a job agree by messages: threads with one store stand for the processes."""

import threading

import numpy as np
import pytest
import torch.distributed as dist

from fmcluster import CaptureError
from fmcluster.capture.ranks import _ranks as ranks_module
from fmcluster.capture.ranks._ranks import Message, Ranks, ranks_of_job


def in_job(work, *, size=3, timeout=5.0, store=None):
    """Let each rank do its work; return what it returned, or raised."""
    store = store or dist.HashStore()
    found = [None] * size

    def run(rank):
        try:
            found[rank] = work(Ranks(store, rank=rank, size=size, timeout=timeout))
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def add_up(said):
    return {"sum": sum(int(message.arrays["x"].sum()) for message in said), "ranks": [m.about["rank"] for m in said]}


def test_the_first_decides_from_what_all_say_and_nothing_stays_in_the_store():
    store = dist.HashStore()

    def work(ranks):
        for number in range(3):
            ranks.start()
            message = Message({"rank": ranks.rank}, {"x": np.full(4, ranks.rank + number)})
            found = ranks.exchange("adding up", message, decide=add_up)
        return found

    assert in_job(work, store=store) == [{"sum": 4 * (0 + 1 + 2 + 3 * 2), "ranks": [0, 1, 2]}] * 3
    assert store.num_keys() == 3  # how often each rank has entered


def test_messages_larger_than_a_key_can_hold(monkeypatch):
    monkeypatch.setattr(ranks_module, "_PIECE", 100)
    message = Message({"rank": 0}, {"x": np.arange(1000)})
    found = in_job(lambda ranks: ranks.exchange("much", message, decide=add_up), size=2)
    assert found == [{"sum": 2 * 999 * 500, "ranks": [0, 0]}] * 2


def test_what_the_first_refuses_is_raised_by_all():
    def refuse(said):
        raise FileExistsError("there is one")

    found = in_job(lambda ranks: ranks.exchange("it", Message(), decide=refuse))
    assert [(type(error), str(error)) for error in found] == [(FileExistsError, "there is one")] * 3


def test_one_that_fails_does_not_wait_and_the_others_hear_its_first_reason():
    def work(ranks):
        ranks.start()
        if ranks.rank == 1:
            ranks.fail("no room")
            ranks.fail("and more")
            return "gone on"
        return ranks.exchange("it", Message(), decide=lambda said: {})

    first, second, third = in_job(work, timeout=60.0)
    assert second == "gone on"
    assert str(first) == str(third) == "rank 1 of 3 failed: no room"
    assert isinstance(first, CaptureError)
    assert isinstance(third, CaptureError)


def test_what_failed_in_one_attempt_is_over_in_the_next():
    def work(ranks):
        ranks.start()
        if ranks.rank == 2:
            ranks.fail("no room")
        ranks.start()
        return ranks.exchange("it", Message(), decide=lambda said: {"n": len(said)})

    assert in_job(work) == [{"n": 3}] * 3


def test_one_that_does_not_come_is_named_on_every_rank_in_time():
    def work(ranks):
        if ranks.rank == 1:
            return None
        return ranks.exchange("it", Message(), decide=lambda said: {})

    first, _, third = in_job(work, timeout=0.3)
    assert isinstance(first, CaptureError)
    assert isinstance(third, CaptureError)
    assert "did not come to 'it' within 0.3 s" in str(first)
    assert "ranks='one'" in str(first)
    assert str(third).startswith(("rank 0 of 3 failed: rank 1 did not", "rank 2 of 3 failed: rank 0 did not"))


def test_a_store_that_is_gone_is_said():
    class Gone:
        def add(self, *_):
            raise dist.DistNetworkError("Connection reset by peer")

    with pytest.raises(CaptureError, match=r"no longer reach one another \(Connection reset by peer\)"):
        Ranks(Gone(), rank=1, size=2, timeout=1.0)


def test_a_process_alone_has_no_ranks():
    assert ranks_of_job(timeout=1.0) is None
