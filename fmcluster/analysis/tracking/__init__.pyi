from ._noise_floor import NoiseFloor as NoiseFloor
from ._noise_floor import noise_floor as noise_floor
from ._noise_floor import noise_floor_between as noise_floor_between
from ._track import track as track
