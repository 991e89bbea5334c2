"""Thresholds: those that cannot be meant are refused."""

import pytest

from fmcluster.analysis import Thresholds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cka": 1.5}, "the threshold cka is 1.5; expected a number from 0 to 1"),
        ({"dead": -0.1}, "the threshold dead is -0.1"),
        ({"noise": True}, "the threshold noise is True"),
        ({"drift": "0.1"}, "the threshold drift is '0.1'"),
        ({"shift": 0.5}, "the threshold shift is 0.5; expected a number of at least 1"),
        ({"shift": float("nan")}, "the threshold shift is nan"),
        ({"n_neighbors": 0}, "n_neighbors is 0; expected an integer of at least 1"),
        ({"n_neighbors": 2.0}, "n_neighbors is 2.0"),
    ],
)
def test_thresholds_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Thresholds(**options)
