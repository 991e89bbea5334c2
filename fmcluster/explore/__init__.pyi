from ._serve import LOOPBACK as LOOPBACK
from ._serve import build_app as build_app
from ._serve import serve as serve
from ._show import ShownExplorer as ShownExplorer
from ._show import show as show
