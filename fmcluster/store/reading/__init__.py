"""Reading of a run: its snapshots, layers, samples and weights, and the verification of all."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
