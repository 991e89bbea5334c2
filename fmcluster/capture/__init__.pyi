from ._batch_recorder import BatchRecorder as BatchRecorder
from ._datasets import with_index as with_index
from ._estimate import Estimate as Estimate
from ._estimate import estimate as estimate
from ._recorder import Recorder as Recorder
from ._replay import replay as replay
