"""Files of this machine and objects of a store: locks, durable writes, and what both can refuse."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
