import errno
from http.client import RemoteDisconnected
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision import models

from fmcluster.recipes import freeze_backbone, load_resnet


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return models.resnet18(num_classes=7).state_dict()


def save(content: object, folder: Path) -> str:
    path = folder / "weights.pt"
    torch.save(content, path)
    return str(path)


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], *, but: str = "\0") -> bool:
    return all(torch.equal(left[key], right[key]) for key in left if not key.startswith(but))


def test_a_random_network_has_the_head_asked_for() -> None:
    network = load_resnet("resnet18", weights="none", n_classes=3)
    assert isinstance(network, models.ResNet)
    assert network.fc.out_features == 3


def test_an_unknown_model_is_answered_with_the_nearest_names() -> None:
    with pytest.raises(ValueError, match=r"unknown model 'resnet19'.*resnet18"):
        load_resnet("resnet19", weights="none", n_classes=2)


@pytest.mark.parametrize("name", ["vgg16", "quantized_resnet18", "fcn_resnet50", "Resnet18", ""])
def test_only_plain_resnets_are_accepted(name: str) -> None:
    with pytest.raises(ValueError, match="expected a torchvision ResNet"):
        load_resnet(name, weights="none", n_classes=2)


def test_no_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="n_classes is 0"):
        load_resnet("resnet18", weights="none", n_classes=0)


def test_a_fitting_head_is_kept(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    network = load_resnet("resnet18", weights=save(state, tmp_path), n_classes=7)
    assert equal(state, network.state_dict())


def test_a_head_of_other_classes_is_fresh_and_the_rest_kept(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    network = load_resnet("resnet18", weights=save(state, tmp_path), n_classes=2)
    assert network.state_dict()["fc.weight"].shape == (2, 512)
    assert equal(state, network.state_dict(), but="fc.")


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_wrappers_and_the_prefix_of_data_parallel_are_taken_off(
    wrapper: str, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    wrapped = {wrapper: {f"module.{key}": value for key, value in state.items()}, "epoch": 3}
    network = load_resnet("resnet18", weights=save(wrapped, tmp_path), n_classes=7)
    assert equal(state, network.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("path", [("model_ema",), ("run", "net"), ("state_dict",)])
def test_weights_of_other_trainers_are_found(path: tuple, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    content: dict = {f"model.{key}": value for key, value in state.items()}
    for key in reversed(path):
        content = {key: content, "epoch": 3}
    assert equal(state, load_resnet("resnet18", weights=save(content, tmp_path), n_classes=7).state_dict())
    two = {"student": state, "teacher": {key: value + 1 for key, value in state.items()}}
    with pytest.raises(ValueError, match=r"weights\.pt holds several that fit this model: 'student'; 'teacher'"):
        load_resnet("resnet18", weights=save(two, tmp_path), n_classes=7)


def test_files_without_batch_counters_are_accepted(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    network = load_resnet("resnet18", weights=save(old, tmp_path), n_classes=7)
    assert equal(state, network.state_dict())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights file at .*absent\.pt.*expected DEFAULT, none"):
        load_resnet("resnet18", weights=str(tmp_path / "absent.pt"), n_classes=2)
    with pytest.raises(FileNotFoundError, match="no weights file"):
        load_resnet("resnet18", weights=str(tmp_path), n_classes=2)


def test_missing_keys_are_counted_and_the_first_named(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    partial = {key: value for key, value in state.items() if not key.startswith("layer4.1.conv")}
    with pytest.raises(ValueError, match=r"2 missing \(layer4.1.conv1.weight, layer4.1.conv2.weight\)"):
        load_resnet("resnet18", weights=save(partial, tmp_path), n_classes=2)


def test_a_missing_head_is_an_error(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    headless = {key: value for key, value in state.items() if not key.startswith("fc.")}
    with pytest.raises(ValueError, match=r"2 missing \(fc.weight, fc.bias\)"):
        load_resnet("resnet18", weights=save(headless, tmp_path), n_classes=2)


def test_unexpected_keys_are_counted_and_the_first_named(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    more = state | {f"extra{number}": torch.zeros(1) for number in range(5)}
    with pytest.raises(ValueError, match=r"5 unexpected \(extra0, extra1, extra2, \.\.\.\)"):
        load_resnet("resnet18", weights=save(more, tmp_path), n_classes=2)


def test_wrong_shapes_are_shown(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    small = state | {"conv1.weight": torch.zeros(64, 3, 3, 3)}
    expected = r"1 of another shape \(conv1.weight received \(64, 3, 3, 3\), expected \(64, 3, 7, 7\)\)"
    with pytest.raises(ValueError, match=expected) as caught:
        load_resnet("resnet18", weights=save(small, tmp_path), n_classes=2)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_weights_of_another_model_are_refused_in_one_line(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"for resnet50 do not fit.*missing.*of another shape") as caught:
        load_resnet("resnet50", weights=save(state, tmp_path), n_classes=2)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 900


@pytest.mark.parametrize("content", [torch.zeros(3), {"epoch": 4}, [1, 2], {1: torch.zeros(1)}])
def test_other_contents_are_refused(content: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no state dict"):
        load_resnet("resnet18", weights=save(content, tmp_path), n_classes=2)


@pytest.mark.parametrize("content", [b"", b"not a file of torch's", b"\x80\x02}q"])
def test_unreadable_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as weights"):
        load_resnet("resnet18", weights=str(path), n_classes=2)


def test_a_pickled_model_is_refused_without_running_its_code(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read as weights") as caught:
        load_resnet("resnet18", weights=save(nn.Linear(1, 1), tmp_path), n_classes=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "failure",
    [
        URLError("no route to host"),
        RemoteDisconnected("closed"),
        TimeoutError("timed out"),
        RuntimeError("hash"),
    ],
)
def test_a_failed_download_says_what_else_to_use(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(models, "get_model", fail)
    with pytest.raises(OSError, match=r"could not be downloaded.*--weights none.*--weights PATH"):
        load_resnet("resnet18", weights="DEFAULT", n_classes=2)


@pytest.mark.parametrize(
    "failure",
    [
        PermissionError(errno.EACCES, "Permission denied", "/none"),
        OSError(errno.ENOSPC, "No space left", "/x"),
    ],
    ids=["permission", "room"],
)
def test_a_cache_that_takes_no_weights_is_no_failed_download(failure: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(models, "get_model", fail)
    with pytest.raises(OSError, match=r"cannot be kept in .*: .*(denied|space left).* Set TORCH_HOME to") as caught:
        load_resnet("resnet18", weights="DEFAULT", n_classes=2)
    assert "network" not in str(caught.value)


def test_downloaded_weights_get_a_fresh_head(monkeypatch: pytest.MonkeyPatch) -> None:
    downloaded = models.resnet18()
    monkeypatch.setattr(models, "get_model", lambda *_, **__: downloaded)
    network = load_resnet("resnet18", weights="DEFAULT", n_classes=2)
    assert network.state_dict()["fc.weight"].shape == (2, 512)


def test_freezing_leaves_gradients_to_the_head_alone() -> None:
    network = freeze_backbone(load_resnet("resnet18", weights="none", n_classes=2))
    trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert trained == ["fc.weight", "fc.bias"]


def test_freezing_needs_a_head() -> None:
    with pytest.raises(ValueError, match="no head named fc"):
        freeze_backbone(nn.Linear(1, 1))
