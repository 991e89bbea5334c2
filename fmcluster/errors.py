"""Error types: those that a caller would want to catch; every other mistake raises a built-in type."""


class StoreError(Exception):
    """A run cannot be read or written: it is damaged, locked, incomplete, or of another format."""


class Unreachable(StoreError):
    """An object store did not answer as it should; later, it may."""


class Refused(Unreachable):
    """An object store does not do what it was asked until credentials, bucket or region are others."""


class NotBegun(StoreError):
    """A run could not be laid out, as its disk or object store takes nothing now; later, it may."""


class NoSnapshotYet(StoreError):
    """A run's recording has begun and goes on, and none of its snapshots is whole yet: try again later."""


INTERRUPTED = "interrupted; whole snapshots and earlier files are kept"
"""What a command says that Ctrl-C ends."""


CALLED_WITH = "was called with a batch of"
"""In the note on what a model raised; it says what to do, so that the command line shows the error in a line."""


class CaptureError(Exception):
    """Feature maps could not be captured: a layer did not fire, changed shape, or overflowed its dtype."""
