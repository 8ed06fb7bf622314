"""The registry: each section measures one part and writes it between its marks on the page of benchmarks."""

import hashlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import report
import setting
from sqlalchemy import select

from salver.clock import SYSTEM_CLOCK
from salver.registry.audit import Audit
from salver.storage.blob_keys import HomeKeys
from salver.storage.blobs import BlobStore
from salver.storage.database import open_database
from salver.storage.home import Home
from salver.storage.schema import journal

PAIRS = 5
RECORDS = 100_000
ARTIFACT_BYTES = 100_000_000


def main():
    given = report.arguments(__doc__, seconds=0).parse_args()
    audit_verification(write=given.write)
    artifact_store(write=given.write)


def show(text):
    print(f"... {text}", file=sys.stderr, flush=True)


def audit_verification(*, write):
    """Verification of a journal against SHA-256 over the very bytes it reads, in processor seconds of one core."""
    with tempfile.TemporaryDirectory(prefix="salver-bench-") as folder:
        home = Home.open(Path(folder) / "home")
        database = open_database(home)
        audit = Audit(home, database, SYSTEM_CLOCK)
        show(f"audit: writing {RECORDS:,} records")
        write_journal(audit, database)
        audit.seal()
        with database.read() as connection:
            texts = [text.encode() for text in connection.execute(select(journal.c.record)).scalars()]
        verify_s, hash_s = [], []
        for turn in range(PAIRS):
            show(f"audit: pair {turn + 1} of {PAIRS}")
            hash_s.append(in_processor_seconds(lambda: [hashlib.sha256(text).digest() for text in texts]))
            verify_s.append(in_processor_seconds(lambda: sound(audit)))
        heads = audit.verify().heads
        database.close()
    rates = [RECORDS / seconds for seconds in verify_s]
    ratios = [one / other for one, other in zip(verify_s, hash_s, strict=True)]
    size = sum(map(len, texts)) / len(texts)
    rate = setting.median(rates)
    lines = [
        f"`salver audit verify` over {RECORDS:,} deployments of {size:.0f} bytes each with {heads} signed tree heads, "
        f"in the seconds of one processor, medians of {PAIRS} interleaved pairs:",
        "",
        "| what | records a second | wanted | |",
        "|---|---|---|---|",
        f"| SHA-256 over the bytes of each record | {RECORDS / setting.median(hash_s):,.0f} | | |",
        f"| verification | {rate:,.0f} | at least 100,000 | {'met' if rate >= 100_000 else '**missed**'} |",
        "",
        f"It takes {setting.median(ratios):.1f} times as long as hashing the bytes once "
        f"({', '.join(f'{ratio:.1f}' for ratio in ratios)}): they are read from the database, hashed for the chain and "
        "for the tree, and compared with the columns.",
    ]
    report.tell("audit", lines, write=write)


def write_journal(audit, database):
    """As deploys write it, though many in one transaction."""
    spec = {"endpoint": "digits", "model": "digits", "version": "1.0.0", "max_batch": 8, "slo_s": 0.05}
    for start in range(0, RECORDS, 10_000):
        with database.begin() as connection:
            for number in range(start, start + 10_000):
                after = spec | {"generation": number}
                audit.journal.append(
                    connection,
                    actor="local:ann",
                    action="deploy",
                    subject="digits",
                    details={"before": spec, "after": after, "digest": "ab" * 32},
                    before=spec,
                    after=after,
                )


def sound(audit):
    check = audit.verify()
    if not check.ok or check.records != RECORDS:
        raise SystemExit(f"the journal is not whole: {check}")


def artifact_store(*, write):
    """Putting a large file into the store, plain and encrypted, against copying it with its SHA-256."""
    os.environ["SALVER_BENCH_KEY"] = os.urandom(32).hex()
    with tempfile.TemporaryDirectory(prefix="salver-bench-") as folder:
        source = Path(folder) / "source"
        source.write_bytes(os.urandom(ARTIFACT_BYTES))
        ways = {
            "copied with SHA-256, and fsync": lambda: copy_and_hash(source, Path(folder) / "copy"),
            "put plain": lambda: BlobStore(Path(folder) / "plain").put_file(source),
            "put encrypted": lambda: BlobStore(Path(folder) / "enc", HomeKeys("env:SALVER_BENCH_KEY")).put_file(source),
        }
        seconds = {way: [] for way in ways}
        for turn in range(PAIRS):
            show(f"artifact store: turn {turn + 1} of {PAIRS}")
            for way, do in ways.items():
                began = time.perf_counter()
                do()
                seconds[way].append(time.perf_counter() - began)
                for place in ("plain", "enc"):
                    shutil.rmtree(Path(folder) / place, ignore_errors=True)
    copying = next(iter(seconds.values()))
    lines = [
        f"A file of {ARTIFACT_BYTES / 1e6:.0f} MB, medians of {PAIRS} interleaved turns:",
        "",
        "| what | seconds | times copying | wanted | |",
        "|---|---|---|---|---|",
    ]
    for way, taken in seconds.items():
        ratio = setting.median([one / other for one, other in zip(taken, copying, strict=True)])
        wanted = f"at most 1.5 | {'met' if ratio <= 1.5 else '**missed**'}" if way.startswith("put") else "|"
        lines.append(f"| {way} | {setting.median(taken):.3f} | {ratio:.2f} | {wanted} |")
    report.tell("artifact store", lines, write=write)


def copy_and_hash(source, destination):
    digest = hashlib.sha256()
    with source.open("rb", buffering=0) as before, destination.open("wb", buffering=0) as after:
        while piece := before.read(1 << 20):
            digest.update(piece)
            after.write(piece)
        os.fsync(after.fileno())
    destination.unlink()
    return digest.hexdigest()


def in_processor_seconds(do):
    began = time.process_time()
    do()
    return time.process_time() - began


if __name__ == "__main__":
    main()
