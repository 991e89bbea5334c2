from ._estimate import Estimate as Estimate
from ._estimate import check_size as check_size
from ._estimate import estimate as estimate
from ._estimate import estimate_kept as estimate_kept
from ._recording_seconds import RecordingSeconds as RecordingSeconds
