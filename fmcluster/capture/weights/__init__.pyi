from ._find_weights import FoundWeights as FoundWeights
from ._find_weights import check_kinds as check_kinds
from ._find_weights import choose_weights as choose_weights
from ._find_weights import find_weights as find_weights
from ._normalization_inputs import NormalizationInputs as NormalizationInputs
from ._read_checkpoint import read_checkpoint as read_checkpoint
from ._weights import ModelWeights as ModelWeights
from ._weights import weight_specs as weight_specs
