from ._similarity import COMPARED as COMPARED
from ._similarity import Similarity as Similarity
from ._similarity import all_pairs as all_pairs
from ._similarity import similarity as similarity
