"""Embeddings of rows in the plane: reducers, losses, neighbors, motion, preservation."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
