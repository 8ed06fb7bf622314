"""What registering costs, and what it does not: a whole registration of a large file, and the start of what serves."""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import report
import setting
from onnx import TensorProto, helper, numpy_helper

from salver.client.registry import Registry

PAIRS = 7
WIDTH = 5000
"""Of the matrix: 100 MB of 32 bits each."""
BOUND = 1.5
STARTS = 9
START_BOUND = 1.1
LIBRARIES = ("sqlalchemy", "alembic", "scipy", "pandas", "sklearn", "matplotlib", "starlette", "uvicorn")
ROOMS = ("salver.registry", "salver.evaluation", "salver.cards")
SERVING = {
    "the server process": "import salver.processes.server",
    "the supervisor": "import salver.cli.serve, salver.processes.supervisor",
}
WITHOUT = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.startswith({ROOMS + LIBRARIES!r}):
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
"""
TIMED = "import time; began = time.perf_counter(); {}; print(time.perf_counter() - began)"


def main():
    given = report.arguments(__doc__, seconds=0).parse_args()
    registering(write=given.write)
    starting(write=given.write)


def show(text):
    print(f"... {text}", file=sys.stderr, flush=True)


def registering(*, write):
    """`publish_model` of a file of 100 MB against copying it with its SHA-256, each into a place that has it not."""
    with tempfile.TemporaryDirectory(prefix="salver-bench-") as folder:
        work = Path(folder)
        small, large = matrix(work / "small.onnx", 10), matrix(work / "large.onnx", WIDTH)
        publish(work / "warm", small, small)
        copying, publishing, little = [], [], []
        for turn in range(PAIRS):
            show(f"registering: pair {turn + 1} of {PAIRS}")
            copying.append(in_seconds(lambda: copied(large, work / "copy")))
            small_s, large_s = publish(work / f"home-{turn}", small, large)
            little.append(small_s)
            publishing.append(large_s)
    ratios = [one / other for one, other in zip(publishing, copying, strict=True)]
    ratio = setting.median(ratios)
    each = ", ".join(f"{each:.2f}" for each in ratios)
    lines = [
        f"`salver.Registry(home=...).publish_model` of an ONNX file of {WIDTH**2 * 4 / 1e6:.0f} MB (one `MatMul`): "
        "its signature, the git checkout, the artifact store, the signed version, the journal. Seconds by the clock, "
        f"medians of {PAIRS} interleaved pairs, each into a home without it:",
        "",
        "| what | seconds | times copying (each pair) | wanted | |",
        "|---|---|---|---|---|",
        f"| copied with SHA-256, and fsync | {setting.median(copying):.3f} | 1.00 | | |",
        f"| registered | {setting.median(publishing):.3f} | {ratio:.2f} ({each}) "
        f"| at most {BOUND:g} | {verdict(ratio, BOUND)} |",
        f"| of that, what a file of 400 bytes takes as well | {setting.median(little):.3f} | | | |",
    ]
    report.tell("registering", lines, write=write)


def matrix(path, width):
    """A model that multiplies with a matrix of random numbers."""
    weights = np.random.default_rng(0).random((width, width), np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "matrix",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def publish(home, small, large):
    """Seconds that publishing takes in a new home, of the small file and of the large one behind it."""
    with Registry(home=home) as registry:
        registry.publish_model("first", small)
        small_s = in_seconds(lambda: registry.publish_model("small", small))
        return small_s, in_seconds(lambda: registry.publish_model("large", large))


def copied(source, destination):
    digest = hashlib.sha256()
    with source.open("rb", buffering=0) as before, destination.open("wb", buffering=0) as after:
        while piece := before.read(1 << 20):
            digest.update(piece)
            after.write(piece)
        os.fsync(after.fileno())
    destination.unlink()


def in_seconds(do):
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


def starting(*, write):
    """The imports of what serves, with the registry's modules there and with none that could be imported."""
    seconds = {process: ([], []) for process in SERVING}
    for turn in range(STARTS):
        show(f"starting: turn {turn + 1} of {STARTS}")
        for process, (there, absent) in seconds.items():
            there.append(import_s(SERVING[process]))
            absent.append(import_s(SERVING[process], before=WITHOUT))
    registry_s = setting.median([import_s("import salver.registry.records") for _ in range(3)])
    lines = [
        "What is imported to serve, in a new interpreter each: as it is, and where neither the registry and its "
        f"neighbours ({', '.join(ROOMS)}) nor the libraries behind them ({', '.join(LIBRARIES)}) can be imported. "
        f"Seconds by the clock, medians of {STARTS} interleaved pairs:",
        "",
        "| what | as it is | without the registry | ratio | wanted | |",
        "|---|---|---|---|---|---|",
    ]
    for process, (there, absent) in seconds.items():
        ratio = setting.median([one / other for one, other in zip(there, absent, strict=True)])
        times = f"{setting.median(there):.3f} | {setting.median(absent):.3f} | {ratio:.2f}"
        lines.append(f"| {process} | {times} | at most {START_BOUND:g} | {verdict(ratio, START_BOUND)} |")
    lines += ["", f"The registry's own imports, which the controller alone waits for, take {registry_s:.3f} s."]
    report.tell("starting", lines, write=write)


def import_s(statement, before=""):
    code = before + TIMED.format(statement)
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def verdict(ratio, bound):
    return "met" if ratio <= bound else "**MISSED**"


if __name__ == "__main__":
    main()
