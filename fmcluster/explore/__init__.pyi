from ._serve import LOOPBACK as LOOPBACK
from ._serve import build_app as build_app
from ._serve import serve as serve
