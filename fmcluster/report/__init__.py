"""Report: one HTML file that shows what a network learned, and works offline."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
