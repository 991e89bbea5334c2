"""The explorer in a cell: a frame with an address that answers, until it is stopped."""

import re
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from fmcluster.explore import show
from fmcluster.store import Run


@pytest.mark.slow
def test_a_cell_shows_a_frame_that_answers_this_machine_alone(run: Run) -> None:
    shown = show(run, height=500)
    try:
        frame = shown._repr_html_()
        address = re.search(r'src="(http://127\.0\.0\.1:\d+/)"', frame)[1]
        assert "height: 500px" in frame
        with urlopen(address) as answer:
            assert b"explore.css" in answer.read()
        with pytest.raises(HTTPError, match="403"):
            urlopen(Request(address, headers={"Host": "elsewhere.example"}))
    finally:
        shown.stop()
    with pytest.raises((ConnectionError, URLError)):
        urlopen(address, timeout=2)
