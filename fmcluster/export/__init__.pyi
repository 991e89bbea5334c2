from ._event_file import check_tensorboard as check_tensorboard
from ._projector import to_projector as to_projector
from ._tensorboard import to_tensorboard as to_tensorboard
from ._wandb import to_wandb as to_wandb
from ._wandb import wandb_module as wandb_module
