"""Inputs: data sets, batches and the probe, and what a model is called with of them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
