"""Objects of a run in a bucket harmed as files are; and runs there that lie, of which nothing leads out of them."""

import http.client
import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from fmcluster import StoreError
from fmcluster.store import RunWriter, copy_run, open_run, verify
from fmcluster.store.format import root_metadata

from ..store.bucket import environment_of, files_of, key_of, objects_of, s3_server
from .conftest import Tally, rounds
from .small_runs import parts_of, record_probe
from .test_damage import HARMS, KINDS, LIVE, TARGETS
from .test_hostile import about, change, nodes

pytest.importorskip("obstore")
pytest.importorskip("moto")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")]


def past_the_proxy(server: Any) -> str:
    return f"http://127.0.0.1:{server.upstream}"


class Bucket:
    """The bucket, past what a run does in it."""

    def __init__(self, server: Any) -> None:
        import obstore
        from obstore.store import S3Store

        self.server = server
        self._obstore = obstore
        self._store = S3Store(
            "bucket",
            endpoint=past_the_proxy(server),
            access_key_id="a",
            secret_access_key="b",
            region="us-east-1",
            client_options={"allow_http": True},
        )

    def mirror(self, folder: Path, url: str) -> None:
        """Let there be the files of a folder, and nothing else."""
        files, there = files_of(folder), objects_of(self.server, key_of(url))
        for name in there.keys() - files.keys():
            self._obstore.delete(self._store, f"{key_of(url)}/{name}")
        for name, content in files.items():
            if there.get(name) != content:
                self.put(f"{key_of(url)}/{name}", content)

    def put(self, key: str, content: bytes) -> None:
        self._obstore.put(self._store, key, content)

    def all(self, prefix: str) -> dict[str, bytes]:
        return objects_of(self.server, prefix)


@pytest.fixture(scope="module")
def server() -> Any:
    with s3_server() as running:
        yield running


@pytest.fixture
def bucket(server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bucket:
    for key, value in environment_of(server).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", past_the_proxy(server))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return Bucket(server)


@pytest.mark.parametrize("harm", TARGETS)
def test_objects_that_were_changed_are_found_and_no_wrong_number_is_read(
    harm: str,
    originals: Callable[[str, int], Path],
    copy_of: Callable[[Path], Path],
    bucket: Bucket,
    tally: Tally,
    tmp_path: Path,
) -> None:
    """The files of a run that was harmed in this way are put where a run lies in the bucket: a few kinds of them."""
    url = f"s3://bucket/{tmp_path.name}/run.zarr"
    for what in random.Random(harm).sample(TARGETS[harm], k=min(rounds(1), len(TARGETS[harm]))):
        kind = "live" if what in LIVE else "probe"
        original, foreign = originals(kind, 0), originals(kind, 1)
        truth = dict(parts_of(original))
        draw = random.Random(f"{what} {harm} bucket")
        run = copy_of(original)
        file = draw.choice(sorted(path for path in run.glob(KINDS[what]) if path.is_file()))
        HARMS[harm](file, draw, run, foreign)
        bucket.mirror(run, url)
        said = f"{what}, {harm}: {file.relative_to(run)}"
        try:
            found = verify(open_run(url))
        except (StoreError, FileNotFoundError) as error:
            found = [str(error)]
        wrong = []
        try:
            wrong = [name for name, value in parts_of(url) if truth[name] != value]
        except (StoreError, FileNotFoundError):
            assert found, f"{said}: reading says that it is damaged, and verify does not"
        tally[f"{harm}, in a bucket", what, "wrong" if wrong else "found" if found else "harmless"] += 1
        assert not wrong, f"{said}: {wrong} are not what was recorded"
        harmless = file == run / "zarr.json" or meaning_of(run) == meaning_of(original)
        assert found or harmless, f"{said} was not found"


def meaning_of(run: Path) -> dict[str, Any]:
    """Return what lies in a run, however JSON is spelled."""
    found: dict[str, Any] = dict(files_of(run))
    for name in found:
        with suppress(ValueError):
            found[name] = json.loads(found[name])
    return found


def outward(there: str) -> Callable[[Path], None]:
    def how(root: dict[str, Any]) -> None:
        nodes(root)[there] = {**nodes(root)["layers/conv/activation"]}

    return lambda run: change(run, how)


def vouch_for(array: str, key: str) -> Callable[[Path], None]:
    """Have the root vouch for one file more."""

    def how(run: Path) -> None:
        root = json.loads((run / "zarr.json").read_bytes())
        about(root)["constant"].setdefault(array, {})[key] = "00000000"
        about(root).pop("digest")
        (run / "zarr.json").write_bytes(root_metadata(about(root), nodes(root)))

    return how


LEADS_OUT = {
    "above": outward("../victim.zarr/layers/conv/activation"),
    "from the top": outward("/victim.zarr/layers/conv/activation"),
    "a URL": outward("s3://bucket/victim.zarr/layers/conv/activation"),
    "encoded": outward("%2e%2e/victim.zarr/layers/conv/activation"),
    "a layer above": outward("layers/../../victim.zarr/activation"),
    "files of others": vouch_for("../victim.zarr/index", "c.0.0"),
    "a key above": vouch_for("samples/label", "../../../victim.zarr/zarr.json"),
}


@pytest.mark.parametrize("what", LEADS_OUT)
def test_nothing_outside_a_run_in_a_bucket_is_read_written_or_removed(
    what: str,
    originals: Callable[[str, int], Path],
    copy_of: Callable[[Path], Path],
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.server.url)  # which notes what is asked for
    above = f"{tmp_path.name}"
    url, run = f"s3://bucket/{above}/run.zarr", copy_of(originals("probe", 0))
    LEADS_OUT[what](run)
    bucket.mirror(originals("probe", 1), f"s3://bucket/{above}/victim.zarr")
    bucket.put(f"{above}/run.zarr.victim/zarr.json", (originals("probe", 1) / "zarr.json").read_bytes())
    bucket.mirror(run, url)
    before = bucket.all(above)

    def asked() -> list[str]:
        return [line for line in bucket.server.asked if "victim" in line]

    bucket.server.asked = []
    for call in (
        lambda: dict(parts_of(url)),
        lambda: verify(open_run(url)),
        lambda: copy_run(run, f"s3://bucket/{above}/copy.zarr"),
        lambda: record_probe(url, seed=0, mode="a", epochs=range(3, 4)),  # type: ignore[arg-type]
    ):
        with pytest.raises(StoreError, match="is damaged"):
            call()
    assert bucket.all(above) == before
    RunWriter(url, mode="w").close()
    assert bucket.server.asked
    assert not asked()
    assert bucket.all(above) == {key: value for key, value in before.items() if not key.startswith("run.zarr/")}


@pytest.mark.parametrize(
    "key",
    [
        "layers/notes.txt",
        "c.0.png",
        "layers/conv/activation/c.0.0.0.0.0/mine",
        "zarr.json/mine",
        ".hidden",
        "a//b",
        "a/../b",
    ],
)
def test_what_else_lies_under_a_run_in_a_bucket_stays(
    key: str, originals: Callable[[str, int], Path], bucket: Bucket, tmp_path: Path
) -> None:
    url = f"s3://bucket/{tmp_path.name}/run.zarr"
    bucket.mirror(originals("probe", 0), url)
    raw_put(bucket.server, f"{key_of(url)}/{key}")
    with pytest.raises((FileExistsError, StoreError)) as refused:
        RunWriter(url, mode="w")
    assert "\n" not in str(refused.value)
    assert len(open_run(url)) == 3
    truth = dict(parts_of(originals("probe", 0)))
    assert dict(parts_of(url)) == truth


LOCKS = {
    "a huge number": json.dumps({"until": 10**400, "process": 1, "host": "a"}),
    "no number": '{"until": Infinity, "process": Infinity, "host": "a"}',
    "deep": '{"until": ' + "[" * 20_000 + "]" * 20_000 + "}",
    "no JSON": "\xff\x00",
    "a list": "[]",
    "lines": json.dumps({"until": 9e99, "process": 1, "host": "a\nerror: \x1b[31m"}),
    "nothing": "",
}


@pytest.mark.parametrize("what", LOCKS)
def test_a_lock_that_is_none_is_one_sentence_or_none(
    what: str, originals: Callable[[str, int], Path], bucket: Bucket, tmp_path: Path
) -> None:
    url = f"s3://bucket/{tmp_path.name}/run.zarr"
    bucket.mirror(originals("probe", 0), url)
    bucket.put(f"{key_of(url)}.lock", LOCKS[what].encode("latin-1"))
    assert len(open_run(url)) == 3
    assert open_run(url).is_being_written == (what == "lines")
    if what == "lines":
        with pytest.raises(StoreError, match=r"^.*written by another process.*$"):
            RunWriter(url, mode="a")
    else:
        RunWriter(url, mode="a").close()
        assert "run.zarr.lock" not in bucket.all(tmp_path.name)


def raw_put(server: Any, key: str) -> None:
    """Put an object whose key obstore itself would refuse."""
    connection = http.client.HTTPConnection("127.0.0.1", server.upstream, timeout=30)
    connection.request("PUT", f"/bucket/{quote(key)}", body=b"mine", headers={"Authorization": "AWS a:b"})
    assert connection.getresponse().status == 200
    connection.close()
