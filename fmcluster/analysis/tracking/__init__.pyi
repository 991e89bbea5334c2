from ._noise_floor import NoiseFloor as NoiseFloor
from ._noise_floor import noise_floor as noise_floor
from ._track import track as track
