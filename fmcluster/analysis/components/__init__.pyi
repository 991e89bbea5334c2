from ._gram import BLOCK_BYTES as BLOCK_BYTES
from ._gram import accumulate_gram as accumulate_gram
from ._gram import plan_pass as plan_pass
from ._gram import product_dtype as product_dtype
from ._gram import read_ahead as read_ahead
from ._gram import slices as slices
from ._pca import pca as pca
from ._rank import effective_rank as effective_rank
