from ._blocks import new_block as new_block
from ._vectors import Matrix as Matrix
from ._vectors import Scale as Scale
from ._vectors import Scaling as Scaling
from ._vectors import Source as Source
from ._vectors import Vectors as Vectors
from ._vectors import make_vectors as make_vectors
from ._views import split_box as split_box
