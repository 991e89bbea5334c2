"""What is written to is a folder of this machine: a URL is refused, also after `Path` took a slash from it."""

from pathlib import Path

import pytest

from fmcluster.store import RunWriter, local_path


@pytest.mark.parametrize("url", ["memory://bucket/run.zarr", "file:///tmp/run.zarr", "https://host/run.zarr"])
def test_a_url_is_named_whole_and_nothing_is_made(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (url, Path(url)):
        for make in (local_path, RunWriter):
            with pytest.raises(
                ValueError, match=rf"path is the URL {url.replace('///', '//')[:6]}.*expected a folder of this machine"
            ):
                make(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["run.zarr", "/a/b", "C:/runs/run.zarr", "a:b/run.zarr", "with space/run.zarr", "x:"])
def test_a_path_stays_one(path):
    assert local_path(path) == Path(path)


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_what_no_system_takes_is_refused_in_words(path):
    for make in (local_path, RunWriter):
        with pytest.raises(ValueError, match=r"path is .*; expected that of a folder, without null characters"):
            make(path)
