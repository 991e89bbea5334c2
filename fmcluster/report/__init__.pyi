from ._write_comparison import write_comparison as write_comparison
from ._write_report import write_report as write_report
