"""Principal components: those of rows that may exceed memory, by Gram and covariance matrices; rank."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
