"""Transfer of outputs to the host: the cast, the reductions, the channel sums, and the bounded memory they wait in."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
