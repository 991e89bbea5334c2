"""From a model in training to a run on disk."""

from .recorder import Recorder

__all__ = ["Recorder"]
