from .datasets import with_index as with_index
from .estimating import Estimate as Estimate
from .estimating import estimate as estimate
from .recorder import Recorder as Recorder
from .replaying import replay as replay
