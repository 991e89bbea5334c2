from .projector import to_projector as to_projector
from .tensorboard import to_tensorboard as to_tensorboard
from .weights_biases import to_wandb as to_wandb
