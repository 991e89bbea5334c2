from ._build import build as build
from ._build import check_modules as check_modules
from ._freeze import freeze as freeze
from ._freeze import freeze_own as freeze_own
from ._modules import Channels as Channels
from ._modules import LowResolution as LowResolution
from ._modules import Skip as Skip
from ._modules import Zeros as Zeros
