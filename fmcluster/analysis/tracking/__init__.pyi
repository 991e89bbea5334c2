from ._noise_floor import Floor as Floor
from ._noise_floor import split_floor as split_floor
from ._track import track as track
