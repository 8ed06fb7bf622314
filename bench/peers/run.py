"""Salver against its peers: the same models, the same requests, one server at a time, ratios from one run.

`--write` puts the result into docs/performance.md. A peer that cannot be measured is told with its reason, and the exit
status is then 1.
"""

import argparse
import contextlib
import itertools
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import answers
import catalog
import load
import own
import page
import report
import running
import setting

CONNECTIONS = {"digits": (1, 16, 64), "noop": (64,), "minilm": (1, 16)}
GRPC = ((16, 1), (4, 8))
"""Connections, and calls on each at a time."""
SHARES = (0.25, 0.5, 0.75)
WARM_S = 1
BEGAN = time.monotonic()


def main():
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    setting.need("wrk", "wrk")
    setting.need("h2load", "nghttp2-client")
    running.adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="salver-peers-") as folder:
        show("models")
        bench = Bench(given, own.Models(Path(folder), given.models))
        bench.build()
        for turn in range(given.rounds):
            bench.round(turn)
        if "digits" in given.models:
            bench.curves()
        report.tell("peers", page.written(bench), write=given.write)
    for name, reason in bench.unable.items():
        print(f"\n*** {name} was NOT measured: {reason} ***", file=sys.stderr)
    return 1 if bench.unable else 0


def arguments():
    names = [peer.name for peer in catalog.PEERS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the result into docs/performance.md")
    parser.add_argument("--only", type=words(names), default=names, help=f"peers, of {','.join(names)}")
    parser.add_argument("--models", type=words(catalog.MODELS), default=list(catalog.MODELS), help="as --only")
    parser.add_argument("--seconds", type=int, default=2, help="length of each load")
    parser.add_argument("--rounds", type=int, default=3, help="how often each server is measured")
    return parser.parse_args()


def words(allowed):
    def read(text):
        found = text.split(",")
        if not set(found) <= set(allowed):
            raise argparse.ArgumentTypeError(f"use some of {','.join(allowed)}")
        return found

    return read


def show(text):
    minutes, seconds = divmod(int(time.monotonic() - BEGAN), 60)
    print(f"{minutes:2}:{seconds:02} {text}", file=sys.stderr, flush=True)


class Bench:
    """What has been measured: loads by (server, model, case), one a round; curves by peer."""

    def __init__(self, given, models):
        self.given = given
        self.models = models
        self.peers = [peer for peer in catalog.PEERS if peer.name in given.only]
        self.versions = {}
        self.unable = {}
        """Why a peer, or a peer and a model, was not measured."""
        self.loads = {}
        self.curve = {}
        self.expected = {}

    def build(self):
        """Every environment; a peer without one is left out, with the reason."""
        for peer in self.peers:
            show(f"environment of {peer.name}")
            try:
                running.build(peer.name)
                self.versions[peer.name] = running.version(peer.name, peer.package)
            except running.UnableError as problem:
                self.give_up(peer, problem)
        self.peers = [peer for peer in self.peers if peer.name not in self.unable]

    def give_up(self, peer, problem, model=None):
        name = f"{peer.name} ({model})" if model else peer.name
        reason = re.sub(r"\w+://\S+", "...", str(problem).replace(f"{running.ROOT}/", ""))  # it goes on the page
        show(f"*** {name}: {reason}")
        self.unable[name] = reason

    def round(self, turn):
        """All servers in turn for each model; Salver before and after them, so that a machine's drift shows."""
        rotated = [*self.peers[turn:], *self.peers[:turn]]
        for model in self.given.models:
            inline = [own.INLINE] if model == "noop" else []
            for entry, place in [
                (own.SALVER, "before"),
                *zip(inline + rotated, itertools.repeat(None)),
                (own.SALVER, "after"),
            ]:
                if f"{entry.name} ({model})" in self.unable:
                    continue
                show(f"round {turn + 1} of {self.given.rounds}, {model}: {entry.name}")
                try:
                    self.measure(entry, model, place or entry.name, check=turn == 0)
                except running.UnableError as problem:
                    if entry in (own.SALVER, own.INLINE):
                        raise SystemExit(f"Salver itself: {problem}") from problem
                    self.give_up(entry, problem, model)

    def measure(self, entry, model, place, *, check):
        bodies = self.bodies(entry, model)
        with self.serving(entry, model, bodies[0]) as address:
            if check:
                self.check(address.url, entry, model)
            load.closed(address.url, bodies, connections=16, seconds=entry.warm_s or WARM_S)
            for connections in CONNECTIONS[model]:
                found = load.closed(address.url, bodies, connections=connections, seconds=self.given.seconds)
                self.keep(place, model, f"{connections} connection{'s' * (connections > 1)}", found)
            if model == "digits" and address.grpc:
                body = setting.grpc_message(self.models.rows[:1])
                for connections, calls in GRPC:
                    found = load.calls(
                        address.grpc, body, connections=connections, streams=calls, seconds=self.given.seconds
                    )
                    self.keep(place, "grpc", f"-c{connections} -m{calls}", found)

    def keep(self, place, model, case, found):
        self.loads.setdefault((place, model, case), []).append(found)

    def bodies(self, entry, model):
        instances = answers.TEXTS if model == "minilm" else [self.models.rows[0].tolist()]
        return [catalog.request(entry.body, model, [one], dims=entry.dims) for one in instances]

    @contextlib.contextmanager
    def serving(self, entry, model, body):
        if entry in (own.SALVER, own.INLINE):
            with self.models.serving(entry, model) as address:
                yield address
        else:
            with running.running(entry, model, self.models.folders[model], body) as address:
                yield address

    def check(self, url, entry, model):
        rows = self.models.rows[-answers.TEST_ROWS :]
        if model not in self.expected:
            self.expected[model] = answers.expected_of(model, self.models.work, rows, url, entry)
        instances = list(answers.TEXTS) * 8 if model == "minilm" else rows.tolist()
        expected = self.expected[model] * 8 if model == "minilm" else self.expected[model]
        answers.require_right(url, entry, model, instances, expected)

    def curves(self):
        """Each peer at shares of its own closed-loop peak, and Salver at the same rates right after it."""
        for peer in self.peers:
            peak = page.peak(self, peer)
            if not peak:
                continue
            for entry in (peer, own.SALVER):
                show(f"open loop, up to {peak * SHARES[-1]:,.0f}/s: {entry.name}")
                try:
                    self.curve[peer.name, entry.name] = self.climb(entry, peak)
                except running.UnableError as problem:
                    self.give_up(entry, problem, "open loop")
                    break

    def climb(self, entry, peak):
        bodies = self.bodies(entry, "digits")
        with self.serving(entry, "digits", bodies[0]) as address:
            load.closed(address.url, bodies, connections=16, seconds=entry.warm_s or WARM_S)
            return [
                load.opened(address.url, bodies[0], rate_per_s=peak * share, seconds=2 * self.given.seconds)
                for share in SHARES
            ]


if __name__ == "__main__":
    sys.exit(main())
