"""What is said to be otherwise before writing is worth another try fits the error."""

import errno
import os

import pytest

from fmcluster.errors import Refused, Unreachable
from fmcluster.store import in_words, remedy


@pytest.mark.parametrize(
    ("number", "said"),
    [
        ("ENOSPC", "room"),
        ("EDQUOT", "room"),
        ("EACCES", "permission"),
        ("EROFS", "file system can be written"),
        ("EIO", "disk"),
        ("ESTALE", "connection"),
        ("ENAMETOOLONG", "shorter path"),
        ("EFBIG", "ulimit -f"),
        ("EMFILE", "ulimit -n"),
        ("ENOENT", "folder"),
        ("ENOTDIR", "in the place of a folder"),
        ("EINTR", "mended"),
    ],
)
def test_each_fault_has_its_own(number: str, said: str) -> None:
    code = getattr(errno, number)
    advice = remedy(OSError(code, os.strerror(code), "run.zarr"))
    assert said in advice
    assert ("room" in advice) == (said == "room")
    assert ("permission" in advice) == (said == "permission")


def test_an_object_store_that_refuses_is_not_waited_for() -> None:
    assert remedy(Unreachable("it does not answer")) == "Once it answers, "
    assert remedy(Refused("there are no credentials")) == "Once that is mended, "


def test_what_is_no_fault_of_the_disk_is_not_said_to_be_one() -> None:
    assert remedy(TypeError("unsupported operand")) == remedy(ValueError("could not broadcast")) == ""
    assert "memory" in remedy(MemoryError())
    assert in_words(MemoryError()) == "MemoryError"
    assert in_words(ValueError("a")) == "ValueError: a"
