"""Layer name: by which a result knows a layer that is handed over, or named."""

from typing import Protocol


class NamedLayer(Protocol):
    """What is needed of a layer of a run where its results are looked up: its name."""

    @property
    def name(self) -> str:
        """The layer's name in the run."""


def layer_name(layer: NamedLayer | str) -> str:
    """Return the name of a layer in its run; a name is that already.

    Examples
    --------
    >>> layer_name("layer4.0.relu")
    'layer4.0.relu'
    """
    return layer if isinstance(layer, str) else layer.name
