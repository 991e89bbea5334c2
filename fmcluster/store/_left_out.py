"""What a run lacks: snapshots that could not be recorded, and layers that default layers leave out."""

from typing import Any

from ._run import Run


def missing_snapshots(run: Run) -> list[dict[str, Any]]:
    """Return of each snapshot that could not be recorded its epoch, its step, and the reason."""
    return [each for session in run.provenance for each in session.get("missing", [])]


def layers_left_out(run: Run) -> dict[str, str]:
    """Return of each layer that the last session left out the reason, by its name."""
    return dict(run.provenance[-1].get("left_out", {})) if run.provenance else {}
