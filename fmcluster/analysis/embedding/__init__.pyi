from ._embed import MOST_ROWS as MOST_ROWS
from ._embed import Reducer as Reducer
from ._embed import embed as embed
from ._fused_embedding import FusedEmbedding as FusedEmbedding
