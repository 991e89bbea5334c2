"""Decide: change a network, measure what that costs and saves, and say what follows."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
