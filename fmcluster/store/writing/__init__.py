"""Writing of a run: its creation, a snapshot's shards, the commit, and the folder or bucket that they go to."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
