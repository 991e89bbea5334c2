"""Pictures: feature maps, and what the analysis found in them.

Every function draws what it is handed: a layer, or a result. Functions with an `ax` draw into it (or into a
new figure) and return the Axes; the others lay out a figure of their own and return it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
