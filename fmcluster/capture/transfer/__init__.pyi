from ._copier import Copier as Copier
from ._copier import Copy as Copy
from ._copier import ExactCopy as ExactCopy
from ._device_clock import pinned_rate as pinned_rate
from ._device_clock import wait_for as wait_for
from ._moments import Moments as Moments
from ._moments import no_statistics as no_statistics
