"""Serving: to this machine alone, with a clear word where that cannot be."""

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

import fmcluster.cli
from fmcluster.explore import build_app, serve
from fmcluster.explore._serve import refuse_others
from fmcluster.store import Run


def test_the_page_and_all_it_needs_come_from_the_app_itself(run: Run) -> None:
    client = build_app(run).server.test_client()
    page = client.get("/", base_url="http://127.0.0.1").get_data(as_text=True)
    assert "https://" not in page.replace("https://dash.plotly.com", "")
    assert "explore.css" in page
    layout = client.get("/_dash-layout", base_url="http://127.0.0.1").get_json()
    assert "run.zarr" in json.dumps(layout)


def test_it_is_served_on_a_free_port_of_this_machine_to_this_machine_alone(run: Run) -> None:
    address: list[str] = []
    known = threading.Event()
    thread = threading.Thread(
        target=serve,
        args=(run.path,),
        kwargs={"port": 0, "ready": lambda where: (address.append(where), known.set())},
        daemon=True,
    )
    thread.start()
    assert known.wait(60)
    assert address[0].startswith("http://127.0.0.1:")
    assert urlopen(address[0]).status == 200
    # a page elsewhere, whose name leads here
    with pytest.raises(HTTPError, match="403"):
        urlopen(Request(address[0], headers={"Host": "elsewhere.example"}))


@pytest.mark.parametrize("host", ["127.0.0.1:8050", "localhost:8050", "[::1]:8050"])
def test_only_its_own_page_is_answered(host: str, run: Run) -> None:
    app = build_app(run)
    refuse_others(app.server)
    client = app.server.test_client()

    def status(**headers: str) -> int:
        return client.get("/_dash-layout", headers={"Host": host} | headers).status_code

    assert status() == 200
    assert status(Origin=f"http://{host}") == 200
    for origin in (
        "http://elsewhere.example",
        f"http://{host[:-1]}1",
        "null",
        "",
        "http://localhost.elsewhere.example",
    ):
        assert status(Origin=origin) == 403
    for other in ("elsewhere.example", "localhost.elsewhere.example:8050", "", "[::2]:8050", "192.168.0.2:8050"):
        assert status(Host=other) == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "[::1"},
        {"Host": "127.0.0.1:99999"},
        {"Host": "127.0.0.1:eighty"},
        {"Origin": "http://127.0.0.1:99999"},
        {"Origin": "http://[::1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_what_is_no_address_and_what_another_site_embeds_is_refused(headers: dict[str, str], run: Run) -> None:
    app = build_app(run)
    refuse_others(app.server)
    asked = {"Host": "127.0.0.1:8050"} | headers
    assert app.server.test_client().get("/report.html", headers=asked).status_code == 403


def test_a_link_of_another_site_may_lead_to_the_page(run: Run) -> None:
    app = build_app(run)
    refuse_others(app.server)
    headers = {"Host": "127.0.0.1:8050", "Sec-Fetch-Site": "cross-site"}
    assert app.server.test_client().get("/", headers=headers).status_code == 200


def test_served_to_all_it_still_answers_no_page_of_another_site(run: Run) -> None:
    app = build_app(run)
    refuse_others(app.server, hosts=None)
    client = app.server.test_client()
    assert client.get("/", headers={"Host": "lab.example:8050"}).status_code == 200
    for origin in ("http://elsewhere.example", "null"):
        headers = {"Host": "lab.example:8050", "Origin": origin}
        assert client.post("/_dash-update-component", headers=headers, json={}).status_code == 403


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/_dash-update-component", b"{]", 400),
        ("/_dash-update-component", b"{}", 400),
        ("/_dash-update-component", b"[1]", 400),
        ("/_dash-update-component", b"[" * 100_000, 400),
        ("/_dash-update-component", b"[" * (5 << 20), 413),
        ("/report.html", b"{}", 405),
    ],
    ids=["no JSON", "nothing", "a list", "depth", "5 MiB", "a method"],
)
def test_what_the_page_never_asks_is_answered_without_a_traceback(
    path: str, body: bytes, status: int, run: Run, capfd: pytest.CaptureFixture
) -> None:
    app = build_app(run)
    refuse_others(app.server)
    headers = {"Host": "127.0.0.1:8050", "Content-Type": "application/json"}
    assert app.server.test_client().post(path, headers=headers, data=body).status_code == status
    assert "Traceback" not in "".join(capfd.readouterr())


def test_settings_that_cannot_be_leave_the_page_as_it_is(run: Run, capfd: pytest.CaptureFixture) -> None:
    """Also of a callback that the page's own message does not come from."""
    app = build_app(run)
    name = next(key for key in app.callback_map if key == "closely.children")
    known = app.callback_map[name]
    values = {"n_clusters": 0, "layer": ["conv1"], "row": 0}

    def given(parts: list[dict[str, str]]) -> list[dict[str, object]]:
        return [{**part, "value": values.get(part["id"])} for part in parts]

    asked = {
        "output": name,
        "outputs": {"id": "closely", "property": "children"},
        "inputs": given(known["inputs"]),
        "state": given(known["state"]),
        "changedPropIds": ["row.value"],
    }
    answer = app.server.test_client().post("/_dash-update-component", json=asked)
    assert answer.get_json() == {"multi": True, "response": {}}
    said = capfd.readouterr().err
    assert said == "fmcluster explore could not answer: ValueError: n_clusters is 0; expected an integer from 1\n"


def test_something_else_than_a_run_is_refused() -> None:
    with pytest.raises(TypeError, match=r"received a str; expected a Run, made by open_run\(path\)"):
        build_app("run.zarr")


def test_a_port_beyond_all_is_refused(run: Run) -> None:
    with pytest.raises(ValueError, match="port is 70000; expected a number from 0 to 65535"):
        serve(run, port=70000)


def test_a_port_in_use_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(sys, "argv", ["fmcluster", "explore", run.path, "--port", str(port), "--no-browser"])
        with pytest.raises(SystemExit) as stopped:
            fmcluster.cli.main()
    assert stopped.value.code == 2
    said = capfd.readouterr().err
    assert f"port {port} of 127.0.0.1 is in use" in said
    assert "--port" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_without_dash_the_error_names_the_extra(run: Run, tmp_path: Path) -> None:
    blocked = "import sys; sys.modules['dash'] = None; from fmcluster.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", blocked, "explore", run.path], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 2
    assert "pip install 'fmcluster[explore]'" in done.stderr
    assert "Traceback" not in done.stderr
