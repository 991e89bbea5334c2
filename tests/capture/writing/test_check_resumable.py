"""Runs that are resumed: what is added to them, and what is refused because it differs."""

from pathlib import Path

import pytest
import torch
from torch import nn

import fmcluster as fm


def files(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


class TestResuming:
    def record(self, model: nn.Module, path: Path, data: list, epochs: range, **options: object) -> None:
        with fm.Recorder(model, path, probe=data, **{"batch_size": 4, "mode": "a", **options}) as recorder:
            for epoch in epochs:
                recorder.snapshot(epoch=epoch)

    @pytest.mark.slow
    def test_in_two_parts_is_the_same_as_in_one(self, net: nn.Module, data: list, tmp_path: Path) -> None:
        self.record(net, tmp_path / "whole", data, range(4))
        self.record(net, tmp_path / "parts", data, range(2))
        self.record(net, tmp_path / "parts", data, range(2, 4))
        whole, parts = files(tmp_path / "whole"), files(tmp_path / "parts")
        assert whole.keys() == parts.keys()
        assert [name for name in whole if whole[name] != parts[name]] == ["zarr.json"]
        assert [s["first_snapshot"] for s in fm.open_run(tmp_path / "parts").provenance] == [0, 2]

    @pytest.mark.slow
    def test_a_run_without_snapshots_is_begun(self, net: nn.Module, tmp_path: Path) -> None:
        class Named(list):
            classes = ("a", "b", "c", "d")

        data = Named([(torch.rand(3, 12, 12), i % 4) for i in range(6)])
        self.record(net, tmp_path / "run.zarr", data, range(0))
        assert len(fm.open_run(tmp_path / "run.zarr")) == 0
        with pytest.raises(fm.StoreError, match=r'in float32. Record into another path, or, .* mode="w"'):
            self.record(net, tmp_path / "run.zarr", data, range(0), dtype="float32")
        self.record(net, tmp_path / "run.zarr", data, range(2))
        run = fm.open_run(tmp_path / "run.zarr")
        assert run.classes == ("a", "b", "c", "d")
        assert run.samples["class_name"].tolist() == ["a", "b", "c", "d", "a", "b"]
        assert [s["first_snapshot"] for s in run.provenance] == [0]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"dtype": "float32"}, "layer conv1 .* in float16, and this recorder has layer conv1 .* in float32"),
            ({"layers": ["conv1", "bn1"]}, r"\d layers, and this recorder has 2 layers"),
            ({"layers": ["bn1"]}, "layer conv1 .*, and this recorder has layer bn1"),
            ({"batch_size": 5}, "batches of 4, and this recorder has batches of 5"),
            ({"probe": "less"}, "it holds 10 samples, and this recorder has 9 samples"),
            ({"probe": "smaller"}, r"conv1 of shape \(6, 6, 6\).*conv1 of shape \(6, 4, 4\)"),
        ],
        ids=str,
    )
    def test_what_differs_is_said(self, change: dict, message: str, net: nn.Module, data: list, tmp_path: Path) -> None:
        self.record(net, tmp_path / "run.zarr", data, range(1))
        before = files(tmp_path / "run.zarr")
        probe = change.pop("probe", None)
        probe = {None: data, "less": data[:9], "smaller": [(d[0][:, :8, :8], d[1]) for d in data]}[probe]
        with pytest.raises(fm.StoreError, match=message):
            self.record(net, tmp_path / "run.zarr", probe, range(1, 2), **change)
        assert files(tmp_path / "run.zarr") == before

    @pytest.mark.slow
    def test_an_existing_run_is_not_overwritten_by_chance(self, net: nn.Module, data: list, tmp_path: Path) -> None:
        self.record(net, tmp_path / "run.zarr", data, range(1))
        with pytest.raises(FileExistsError, match='mode="a"'):
            self.record(net, tmp_path / "run.zarr", data, range(1), mode="x")
        self.record(net, tmp_path / "run.zarr", data, range(7, 8), mode="w")
        assert fm.open_run(tmp_path / "run.zarr").epochs == [7]
