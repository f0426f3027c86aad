"""Every counter, gauge and histogram of the process: descriptions and readings.

STORE, PLANE, COMMAND and PROCESS find an owner's metric by its name.  A name that is not in
csrc/base/metrics.def is a KeyError.  A module looks up the metrics that it names while it is
imported, so a wrong name cannot wait for its line to run.
"""

from oort.metrics.reading import Histogram, Reading
from oort.metrics.table import ALL, COMMAND, PLANE, PROCESS, STORE, Kind, Metric, label_values

__all__ = [
    "ALL",
    "COMMAND",
    "PLANE",
    "PROCESS",
    "STORE",
    "Histogram",
    "Kind",
    "Metric",
    "Reading",
    "label_values",
]
