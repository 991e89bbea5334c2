"""Pieces that pictures are drawn from: tiles, sheets, figures, colors, snapshot titles."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
