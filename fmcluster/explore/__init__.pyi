from .serving import build_app as build_app
from .serving import serve as serve
