"""Passes that are recorded: a batch of the probe or of training on its way through the model."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
