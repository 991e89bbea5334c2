from ._blocks import new_block as new_block
from ._scaling import Matrix as Matrix
from ._scaling import Scale as Scale
from ._scaling import Scaling as Scaling
from ._vectors import Source as Source
from ._vectors import Vectors as Vectors
from ._vectors import make_vectors as make_vectors
from ._views import split_box as split_box
