"""Axes are followed through operations, not guessed from lengths: where all lengths are equal, nothing else tells."""

from typing import Any

import pytest
import torch
from torch import nn

from fmcluster.capture.inputs._inputs import ModelInputs
from fmcluster.capture.layers._axis_flow import AxisFlow
from fmcluster.capture.layers._layers import discover
from fmcluster.capture.options._options import Keep

SIX = torch.rand(6, 6, 6, 6, generator=torch.Generator().manual_seed(0))


def windows(x: torch.Tensor) -> torch.Tensor:
    """Swin's: (n, h, w, c) to (n * windows, window, c) and back."""
    n, h, w, c = x.shape
    parts = x.view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
    return (parts + 1).view(n, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)


def heads(x: torch.Tensor) -> torch.Tensor:
    """Attention of two heads over the tokens of (n, token, channel)."""
    q = x.view(*x.shape[:2], 2, -1).transpose(1, 2)
    return nn.functional.scaled_dot_product_attention(q, q, q).transpose(1, 2).reshape(x.shape)


@pytest.mark.parametrize(
    ("computed", "expected"),
    [
        (lambda x: x.permute(0, 2, 3, 1).contiguous() * 2, (0, 3)),
        (lambda x: x.permute(0, 2, 3, 1).permute(0, 3, 1, 2).relu(), (0, 1)),
        (lambda x: windows(x.permute(0, 2, 3, 1)), (0, 3)),
        (lambda x: x.flatten(2).transpose(1, 2), (0, 2)),
        (lambda x: heads(x.flatten(2).transpose(1, 2)), (0, 2)),
        (lambda x: x.flatten(2).permute(2, 0, 1), (1, 2)),
        (lambda x: torch.cat([x, x], 1)[:, 3:9], (0, 1)),
        (lambda x: torch.stack([x.mean((2, 3))] * 6, 1), (0, 2)),
        (lambda x: x.movedim(1, 3).chunk(2, -1)[1], (0, 3)),
        (lambda x: nn.functional.linear(x.permute(0, 2, 3, 1), torch.eye(6)), (0, 3)),
        # positions mixed, each channel by itself, and turned back: a mixer's block
        (lambda x: nn.functional.linear(x.flatten(2), torch.ones(36, 36)).transpose(1, 2), (0, 2)),
        # what views samples and channels as one axis, and back
        (lambda x: nn.functional.instance_norm(x).permute(0, 2, 3, 1).contiguous(), (0, 3)),
        (lambda x: nn.functional.conv2d(x.view(1, 36, 6, 6), torch.ones(36, 6, 1, 1), groups=6).view(x.shape), (0, 1)),
        (lambda x: nn.functional.unfold(x[:, :3, :3, :3], 2).transpose(1, 2).contiguous(), (0, 2)),
        (lambda x: nn.functional.pixel_shuffle(torch.cat([x] * 4, 1), 2).permute(0, 2, 3, 1).contiguous(), (0, 3)),
        (lambda x: x.flatten(1), (0, None)),  # an axis of channels and positions is none of channels
        (lambda x: x.view(6, 2, 3, 6, 6), (0, None)),
    ],
)
def test_axes_where_all_lengths_are_equal(computed: Any, expected: tuple[int, int | None]) -> None:
    images = SIX.clone()
    with AxisFlow() as flow:
        flow.label(images, 0, label="batch")
        flow.label(images, 1, label="channel")
        out = computed(images)
    assert (flow.axis_of(out, "batch"), flow.axis_of(out, "channel")) == expected


class Turned(nn.Module):
    """ConvNeXt's order, in maps of as many rows, columns and channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.turn, self.norm, self.back, self.act = (
            nn.Conv2d(3, 6, 3),
            Turn(),
            nn.LayerNorm(6),
            Back(),
            nn.ReLU(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.back(self.norm(self.turn(self.stem(x)))))


class Turn(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1)


class Back(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 3, 1, 2)


class TokensFirst(nn.Module):
    """Turns (n, token, channel) to (token, n, channel) within."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.position, self.head = nn.Linear(5, 4), nn.Embedding(7, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.inner(x.transpose(0, 1)).mean(0) + self.position(torch.arange(7)).mean(0))


def found(model: nn.Module, inputs: torch.Tensor) -> Any:
    with torch.no_grad():
        keep = Keep(dtype="float32")
        return discover(model, dict(model.named_children()), inputs=ModelInputs((inputs,)), keep=keep, optional=True)


def test_modules_that_turn_square_maps() -> None:
    layers = found(Turned(), torch.rand(2, 3, 8, 8)).layers.values()
    assert {layer.spec.name: layer.spec.returned_axis for layer in layers} == {
        "stem": 1,
        "turn": 3,
        "norm": 3,
        "back": 1,
        "act": 1,
    }
    assert {layer.spec.axis_source for layer in layers} == {"module"}


def test_as_many_tokens_as_samples_are_not_taken_for_samples() -> None:
    discovery = found(TokensFirst(), torch.rand(7, 7, 5))
    assert [layer.spec.name for layer in discovery.layers.values()] == ["inner", "head"]
    assert next(iter(discovery.layers.values())).samples_axis == 1
    assert "its 7 rows are not samples: of 6 samples it returned 7" in discovery.left_out["position"]


@pytest.mark.parametrize("strange", ["sparse", "nested", "without channels"])
def test_tensors_of_no_vectors_are_left_out(strange: str) -> None:
    class Strange(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made = {"sparse": x.to_sparse, "nested": lambda: torch.nested.nested_tensor(list(x), layout=torch.jagged)}
            return made.get(strange, lambda: x[:, :0])()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.strange, self.head = Strange(), nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.strange(x)
            return self.head(x)

    assert [layer.spec.name for layer in found(Net(), torch.rand(4, 5)).layers.values()] == ["head"]
