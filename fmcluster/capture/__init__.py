"""Capture: recorders that take what the layers of a model in training return to a run on disk."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
