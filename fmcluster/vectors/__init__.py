"""Vectors: views of feature maps as rows of a matrix, and the blocks of memory they are read into."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
