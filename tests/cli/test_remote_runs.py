"""Commands at a run in a bucket: they answer, and leave nothing where they are called but what was asked for."""

import pytest

from fmcluster.cli import main
from tests.cli.test_odd_runs import CONV, FC, write
from tests.store.bucket import environment_of, s3_server

URL = "s3://bucket/run.zarr"


@pytest.mark.slow
def test_commands_at_a_run_in_a_bucket(tmp_path, monkeypatch, capsys):
    here = tmp_path / "here"
    here.mkdir()
    path = write(tmp_path / "run.zarr", [CONV, FC]).path
    monkeypatch.chdir(here)

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["fmcluster", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
            raise SystemExit(0)
        return end.value.code or 0

    with s3_server() as server:
        for key, value in environment_of(server).items():
            monkeypatch.setenv(key, value)
        for command in (("copy", path, URL), ("info", URL), ("verify", URL), ("diagnose", URL)):
            assert call(*command) == 0
        capsys.readouterr()
        assert call("analyze", URL, "--layer", "conv", "--clusters", 2) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "The tables are not saved: there is no folder beside a run at a URL. -o names one." in said
        assert not list(here.iterdir())
        assert call("analyze", URL, "--layer", "conv", "--clusters", 2, "-o", tmp_path / "tables") == 0
        assert (tmp_path / "tables" / "rows.csv").is_file()
        for command in (
            ("report", URL, "--layer", "conv", "--clusters", 2, "-o", "page.html"),
            ("compare", path, URL, "-o", "both.html"),
            ("plot", URL, "channel_grid", "--layer", "conv", "-o", "grid.png"),
        ):
            assert call(*command) == 0
        assert sorted(each.name for each in here.iterdir()) == ["both.html", "grid.png", "page.html"]
