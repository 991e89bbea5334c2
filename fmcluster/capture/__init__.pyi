from .recorder import Recorder as Recorder
from .replaying import replay as replay
