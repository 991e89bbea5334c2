"""Checkpoint files of torch and of safetensors: the same weights, told by their bytes, and errors in plain words."""

import copy
import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn
from torchvision.models import resnet18

import fmcluster as fm
from fmcluster.capture import choose_weights, read_checkpoint
from fmcluster.recipes import load_resnet


def make(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))


@pytest.mark.parametrize("name", ["model.safetensors", "weights", "last.pt"])
@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_the_bytes_tell_which_kind_it_is(name: str, kind: str, tmp_path: Path) -> None:
    expected = make(0).state_dict()
    (torch.save if kind == "torch" else save_file)(expected, tmp_path / name)
    found = read_checkpoint(tmp_path / name)
    assert isinstance(found, dict)
    assert found.keys() == expected.keys()
    for each, value in expected.items():
        assert torch.equal(found[each], value)


def test_a_replay_of_either_kind_is_the_same(tmp_path: Path) -> None:
    trained, probe = make(1), [torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    torch.save(trained.state_dict(), tmp_path / "0.pt")
    save_file({f"model.{name}": value for name, value in trained.state_dict().items()}, tmp_path / "1.safetensors")
    both = {0: tmp_path / "0.pt", 1: tmp_path / "1.safetensors"}
    fm.replay(make(0), tmp_path / "run.zarr", checkpoints=both, probe=probe, dtype="float32")
    last = fm.open_run(tmp_path / "run.zarr")["3"]
    with torch.no_grad():
        expected = trained.eval()(torch.stack(probe)).numpy()
    for epoch in both:
        assert (last.read(epoch=epoch) == expected).all()


def test_a_resnet_takes_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved = resnet18(num_classes=3)
    save_file(saved.state_dict(), tmp_path / "model.safetensors")
    loaded = load_resnet("resnet18", weights=str(tmp_path / "model.safetensors"), n_classes=3)
    for name, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_a_tensor_of_two_names_may_be_there_under_one(tmp_path: Path) -> None:
    tied = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    tied[2].weight = tied[0].weight
    save_model(tied, str(tmp_path / "tied.safetensors"))
    held = read_checkpoint(tmp_path / "tied.safetensors")
    assert isinstance(held, dict)
    assert len(held) == 3  # of four names
    other = copy.deepcopy(tied)
    with torch.no_grad():
        other[0].weight.zero_()
    for prefix in ("", "model."):
        found, _ = choose_weights({prefix + name: value for name, value in held.items()}, like=other.state_dict())
        other.load_state_dict(found.weights)
        assert torch.equal(other[2].weight, tied[0].weight)


@pytest.mark.parametrize("content", [b"", b"junk", b"\x09" + b"\0" * 7 + b"{damaged}", b"\xff" * 8 + b"{"])
@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_a_damaged_file_is_said_to_be_one(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"^cannot be read as weights \(.+\); expected a file of torch\.save"):
        read_checkpoint(tmp_path / name)


def test_without_safetensors_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(make(0).state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match=r"model\.safetensors is a file of safetensors.*'fmcluster\[safetensors\]'"):
        read_checkpoint(tmp_path / "model.safetensors")


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint file, but a folder: pass one in it"):
        fm.replay(make(0), tmp_path / "run.zarr", checkpoints={0: tmp_path}, probe=[torch.rand(3, 8, 8)])


def test_of_a_file_that_is_none_torchs_advice_to_trust_it_is_not_handed_on(tmp_path: Path) -> None:
    (tmp_path / "bad.pt").write_bytes(b"123")
    with pytest.raises(ValueError, match=r"^cannot be read as weights \(Unsupported operand 49\)") as error:
        read_checkpoint(tmp_path / "bad.pt")
    assert "Re-running" not in str(error.value)


def test_a_bit_that_was_flipped_among_the_weights_is_found(tmp_path: Path) -> None:
    """torch reads the checksums of an archive's files, and does not compare them."""
    path, weights = tmp_path / "model.pt", torch.arange(100.0)
    torch.save({"weight": weights}, path)
    content = path.read_bytes()
    at = content.index(weights.numpy().tobytes()) + 201
    path.write_bytes(content[:at] + bytes([content[at] ^ 64]) + content[at + 1 :])
    assert not torch.equal(torch.load(path)["weight"], weights)
    with pytest.raises(ValueError, match=r"cannot be read as weights \(Bad CRC-32 for file 'model/data/0'\)"):
        read_checkpoint(path)


def test_an_archive_without_checksums_is_read(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"weight": torch.ones(3)}, tmp_path / "model.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    assert torch.equal(read_checkpoint(tmp_path / "model.pt")["weight"], torch.ones(3))


def test_code_in_a_file_is_not_run_and_the_reason_is_one_short_sentence(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {tmp_path / 'done'}",)

    torch.save({"weight": Harm()}, tmp_path / "new.pt")
    torch.save(Harm(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Harm()))
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ValueError, match=r"^cannot be read as weights") as raised:
            read_checkpoint(path)
        assert "arbitrary code" not in str(raised.value)
    assert not (tmp_path / "done").exists()
