"""Load on a server, measured from outside: `run_load(LoadPlan(...)) -> LoadReport`.

`examples` makes a request up, `plan` says what to send and how fast, `connection` speaks HTTP/1.1
with as little as possible, `arrivals` wakes at the times requests are meant to leave, `generator`
sends, `tally` counts what came of it, `report` makes percentiles of that and `rendering` text.
Latency counts from the moment a request was meant to leave, so a server that stalls cannot hide
the requests it kept from being sent.
"""

from salver.loadgen.examples import example_request
from salver.loadgen.generator import Progress, run_load
from salver.loadgen.plan import LoadPlan, Mode
from salver.loadgen.rendering import render_report
from salver.loadgen.report import Bucket, Latency, Lateness, LoadReport
from salver.protocol.arrivals import Arrivals

__all__ = [
    "Arrivals",
    "Bucket",
    "Latency",
    "Lateness",
    "LoadPlan",
    "LoadReport",
    "Mode",
    "Progress",
    "example_request",
    "render_report",
    "run_load",
]
