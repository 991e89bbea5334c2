from ._batch_pass import BatchPass as BatchPass
from ._context import SnapshotContext as SnapshotContext
from ._epoch import LiveEpoch as LiveEpoch
from ._loss_scale import Scaler as Scaler
from ._loss_scale import as_scale as as_scale
from ._probe_pass import Loss as Loss
from ._probe_pass import ProbePass as ProbePass
from ._step_counter import StepCounter as StepCounter
