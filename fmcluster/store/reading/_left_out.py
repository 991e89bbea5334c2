"""Left out of a run: snapshots and layers that could not be recorded, and layers that cannot be relied on."""

from typing import Any

from ._run import Run


def missing_snapshots(run: Run) -> list[dict[str, Any]]:
    """Return of each snapshot that could not be recorded its epoch, its step, and the reason."""
    return [each for session in run.provenance for each in session.get("missing", [])]


def layers_left_out(run: Run) -> dict[str, str]:
    """Return of each layer that the last session left out the reason, by its name."""
    return dict(run.provenance[-1].get("left_out", {})) if run.provenance else {}


def varying_layers(run: Run) -> list[str]:
    """Return the layers that gave other values when the model was shown the same batch again, in any session."""
    named = [name for session in run.provenance for name in session.get("varying", [])]
    return [name for name in run.layers if name in named]
