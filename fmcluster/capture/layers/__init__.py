"""Layers that are recorded: what each returns, which axes hold samples and channels, and how layers are linked."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
