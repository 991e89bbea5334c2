"""Explorer: a whole run in the browser, any layer, snapshot, image, view and clusterer, computed on request."""

from importlib.util import find_spec

import lazy_loader

if find_spec("dash") is None:
    raise ImportError("the explorer needs Dash, which is not installed; get it with: pip install 'fmcluster[explore]'")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
