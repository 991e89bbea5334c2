"""See what a ResNet learns while it is fine-tuned.

Capture feature maps during training, cluster them across epochs, and see how they evolve.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
