"""Tensors that are known again: by their identity, and by how often they were changed in place."""

from typing import Generic, TypeVar
from weakref import ref

import torch

from .._compat import version_of

What = TypeVar("What")


class KnownTensors(Generic[What]):
    """What is known of tensors, as they were then, for as long as others hold them."""

    def __init__(self) -> None:
        self._known: list[tuple[What, ref[torch.Tensor], int]] = []

    def remember(self, what: What, tensor: torch.Tensor) -> None:
        """Remember a tensor as it is now; what was known of it before is forgotten."""
        if not tensor.is_inference():  # which does not say how often it was changed
            self._known.append((what, ref(tensor), version_of(tensor)))

    def of(self, tensor: torch.Tensor) -> What | None:
        """Return what is known of a tensor; None where it has been changed since."""
        if tensor.is_inference():
            return None
        for what, known, version in reversed(self._known):
            if known() is tensor and version == version_of(tensor):
                return what
        return None
