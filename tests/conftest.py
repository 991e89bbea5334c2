"""What the tests share."""

import os

import pytest


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test cuts the power, so none has to wait until its files would survive that."""
    monkeypatch.setattr(os, "fsync", lambda handle: os.fstat(handle))
