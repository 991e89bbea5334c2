from ._pairs import all_pairs as all_pairs
from ._pairs import all_pairs_on_cluster as all_pairs_on_cluster
from ._similarity import COMPARED as COMPARED
from ._similarity import Similarity as Similarity
from ._similarity import similarity as similarity
