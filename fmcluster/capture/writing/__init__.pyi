from ._filling import Filling as Filling
from ._pending import Taken as Taken
from ._pending import as_numbers as as_numbers
from ._pending import check_epoch as check_epoch
from ._pending import check_order as check_order
from ._resume import last_snapshot as last_snapshot
from ._resume import stored_digests as stored_digests
from ._session import Session as Session
