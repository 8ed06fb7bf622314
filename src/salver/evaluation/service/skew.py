"""Training-serving skew: the same rows by the library in one batch, and online by a real server.

What differs is what a client gets and the notebook never showed: float64 rows that the wire makes float32, a row
alone that is padded otherwise than in a batch, missing values that JSON cannot carry, labels in another order.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from salver.evaluation.behaviour.invariance import sample_rows
from salver.evaluation.reports.results import CheckResult, Mark, Plot, ResultTable, Role, Series
from salver.evaluation.service.batch_paths import BatchOrder
from salver.evaluation.service.batch_process import BatchAnswer, BatchRows
from salver.evaluation.subject.exchanges import is_label, text_of
from salver.evaluation.subject.given import OnlinePaths
from salver.evaluation.subject.rows import Array, Rows
from salver.evaluation.subject.sent_array import SentArray
from salver.evaluation.subject.subject import Subject
from salver.evaluation.suites.service_sections import SkewSettings
from salver.protocol.errors import SalverError
from salver.protocol.tables import VersionManifest
from salver.protocol.verdict import Judgement, Verdict
from salver.runtime.asking import ask_child
from salver.runtime.child import Ended
from salver.runtime.declaration import read_declaration
from salver.runtime.formats import format_named
from salver.storage.blob_store import Blobs
from salver.storage.opening import open_blobs

__all__ = ["SkewCheck", "differences"]

_MOST_ANSWERED_BYTES: Final = 2**30
_BATCH_S: Final = 300.0
_CLASSES: Final = "classes"
_MOST_ROWS: Final = 256
"""Of a request, as many as a deployment takes by default."""


@dataclass(frozen=True)
class _Found:
    """One output over one path, compared with the batch."""

    path: str
    size: str
    output: str
    rows: int
    largest: float
    outside: int
    refused: int = 0
    why: str = ""


class SkewCheck:
    """Rows answered in a batch and online, compared output by output."""

    name = "skew"
    role = Role.SAFEGUARD

    def __init__(self, settings: SkewSettings) -> None:
        self._settings = settings

    def run(self, subject: Subject) -> CheckResult:
        """Answer the rows both ways."""
        given, settings = subject.given, self._settings
        if given.online is None or given.home is None:
            return CheckResult(Verdict.INCONCLUSIVE, ("nothing here can start a server to compare with",))
        if not subject.manifest.signature.batched:
            return CheckResult(Verdict.INCONCLUSIVE, ("the version takes one row at a time and so has no batch",))
        rows = subject.rows.take(sample_rows(subject, settings.rows, subject.rng("skew")))
        answer = batch_answer(subject, rows, open_blobs(given.home), settings.script)
        if answer.unsupported:
            reason = f"no batch to compare with: {answer.unsupported}; give it as [skew] script"
            return CheckResult(Verdict.INCONCLUSIVE, (reason,))
        batch = {tensor.name: tensor.numpy() for tensor in answer.outputs}
        order = _order_judgement(batch.pop(_CLASSES, None), subject.manifest)
        with given.online(subject.manifest) as server:
            found = [each for path in settings.paths for each in self._over(path, server, subject, rows, batch)]
        judgements = [*([order] if order else []), *map(self._judged, found)]
        judged = Judgement.together(judgements)
        if judged.verdict is Verdict.SUCCESSFUL:
            largest, ways = max((each.largest for each in found), default=0.0), ", ".join(settings.paths)
            reason = f"the batch of {len(rows)} rows and {ways} differ by {largest:.3g} at most, single rows too"
            judged = Judgement(Verdict.SUCCESSFUL, (*(order.reasons if order else ()), reason))
        return CheckResult(judged.verdict, judged.reasons, _numbers(found, rows), (_table(found),), _plots(found))

    def _over(
        self, path: str, server: OnlinePaths, subject: Subject, rows: Rows, batch: Mapping[str, Array]
    ) -> list[_Found]:
        """One path, with rows alone and with rows together."""
        settings, found = self._settings, []
        most = min(subject.asked.served.batch_rows, _MOST_ROWS)
        for size, count, step in (("single rows", min(settings.singles, len(rows)), 1), ("batches", len(rows), most)):
            if not count or (step == 1 and size == "batches"):
                continue
            asked = subject.asked.mapping.arrays(rows.take(np.arange(count)))
            outputs, refused, why = _online(path, server, asked, count, step)
            kept = np.setdiff1d(np.arange(count), refused)
            if len(refused):
                found.append(_Found(path, size, "", count, 0.0, 0, len(refused), why))
            names = [name for name in outputs if name in batch]
            found += [self._compared(path, size, name, batch[name][kept], outputs[name]) for name in names]
            if outputs and not names:
                raise SalverError(
                    "BAD_MODEL_OUTPUT",
                    f"the batch path answers {', '.join(batch)}, and the server {', '.join(outputs)}",
                    "have the script return outputs of the version's names",
                )
        return found

    def _compared(self, path: str, size: str, name: str, batch: Array, online: Array) -> _Found:
        settings = self._settings
        absolute = settings.outputs.get(name, settings.absolute)
        largest, outside = differences(batch, online, absolute, settings.relative)
        return _Found(path, size, name, len(online), largest, outside)

    def _judged(self, found: _Found) -> Judgement:
        where = f"{found.path}, {found.size}"
        if found.refused:
            reason = f"{where}: {found.refused} of {found.rows} rows cannot be asked: {found.why}"
            return Judgement(Verdict.INCONCLUSIVE, (reason,))
        share = found.outside / found.rows if found.rows else 0.0
        said = (
            f"{where}: {found.output} differs in {found.outside} of {found.rows} rows, by {found.largest:.3g} at most"
        )
        kept = share <= self._settings.outside_at_most
        return Judgement(Verdict.SUCCESSFUL if kept else Verdict.FAILED, (said,))


def differences(batch: Array, online: Array, absolute: float, relative: float) -> tuple[float, int]:
    """The largest difference between two answers, and how many rows differ by more than is allowed.

    Labels differ or do not; numbers may by `absolute` and `relative` of the batch's. NaN is equal to NaN alone.
    Another shape differs in every row.
    """
    if batch.shape != online.shape and batch.size == online.size:
        batch = batch.reshape(online.shape)
    if batch.shape != online.shape:
        return float("inf"), len(online)
    if is_label(batch) or is_label(online):
        wrong = (text_of(batch) != text_of(online)).reshape(len(online), -1).any(axis=1)
        return float(wrong.any()), int(wrong.sum())
    one, other = batch.astype(np.float64), online.astype(np.float64)
    with np.errstate(invalid="ignore"):
        off = np.abs(one - other)
    off = np.where((one == other) | (np.isnan(one) & np.isnan(other)), 0.0, np.nan_to_num(off, nan=np.inf))
    allowed = absolute + relative * np.nan_to_num(np.abs(one), posinf=0.0)
    wrong = (off > allowed).reshape(len(online), -1).any(axis=1)
    return float(off.max(initial=0.0)), int(wrong.sum())


def batch_answer(subject: Subject, rows: Rows, blobs: Blobs, script: str) -> BatchAnswer:
    """What the library, or the user's own script, says of all rows at once, in a process of its own."""
    manifest = subject.manifest
    inputs = subject.asked.mapping.arrays(rows)
    with tempfile.TemporaryDirectory(prefix="salver-batch-") as room:
        directory = Path(room) / "artifact"
        with blobs.hold(file.sha256 for file in manifest.files):
            for file in manifest.files:
                target = directory / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                blobs.copy_verified(file.sha256, target)
        order = BatchOrder(
            str(directory),
            _main_file(manifest, directory),
            manifest.format,
            read_declaration(directory).entry,
            manifest.preprocess,
            manifest.postprocess,
            manifest.trusts_code,
            script,
        )
        tensors = tuple(SentArray.of(name, array) for name, array in inputs.items())
        columns = {name: rows.column(name).astype(object).tolist() for name in rows.columns} if script else {}
        asked = BatchRows(order, tensors, columns, _matrix(subject, rows))
        answer = ask_child(
            "salver.evaluation.service.batch_process",
            asked,
            BatchAnswer,
            limit_s=_BATCH_S,
            answer_bytes=_MOST_ANSWERED_BYTES,
            shown=True,
        )
    if isinstance(answer, Ended):
        raise SalverError("MODEL_ERROR", f"the batch path {answer.why}", "see [skew] script")
    return answer


def _main_file(manifest: VersionManifest, directory: Path) -> str:
    if len(manifest.files) == 1:
        return manifest.files[0].path
    found = format_named(manifest.format).main_file(directory)
    return found.name if found is not None else manifest.files[0].path


def _matrix(subject: Subject, rows: Rows) -> SentArray | None:
    """The rows of a single matrix of numbers as the data has them: what training saw, before the wire narrows it."""
    mapped = subject.asked.mapping.columns
    specs = {spec.name: spec for spec in subject.manifest.signature.inputs}
    if len(mapped) != 1:
        return None
    name, columns = next(iter(mapped.items()))
    if len(specs[name].shape) != 2 or not all(rows.column(each).dtype.kind in "biuf" for each in columns):
        return None
    return SentArray.of(name, np.stack([rows.numbers(each) for each in columns], axis=1))


def _online(
    path: str, server: OnlinePaths, inputs: Mapping[str, Array], count: int, step: int
) -> tuple[dict[str, Array], Array, str]:
    """The outputs over one path, `step` rows a request; which rows were refused, and why.

    A refused batch is asked again row by row.
    """
    parts: list[dict[str, Array]] = []
    refused: list[int] = []
    why = ""
    for start in range(0, count, step):
        stop = min(start + step, count)
        try:
            parts.append(server.ask(path, {name: array[start:stop] for name, array in inputs.items()}))
        except SalverError as error:
            if error.http >= 500 or stop - start == 1:
                if error.http >= 500:
                    raise
                refused.append(start)
                why = str(error)
                continue
            cut = {name: array[start:stop] for name, array in inputs.items()}
            alone, bad, why = _online(path, server, cut, stop - start, 1)
            refused += [start + int(index) for index in bad]
            parts += [alone] if alone else []
    names = parts[0].keys() if parts else ()
    joined = {name: np.concatenate([part[name] for part in parts]) for name in names}
    return joined, np.array(refused, dtype=np.int64), why


def _order_judgement(classes: Array | None, manifest: VersionManifest) -> Judgement | None:
    """Whether the columns of probabilities stand for what the signature says; None where one of them is silent."""
    spec = next((spec for spec in manifest.signature.outputs if spec.name == "probabilities"), None)
    if classes is None or spec is None or not spec.labels:
        return None
    own, told = text_of(classes).tolist(), list(spec.labels)
    if own == told:
        return Judgement(Verdict.SUCCESSFUL, (f"the columns of probabilities stand for {', '.join(told[:10])}",))
    reason = (
        f"the columns of probabilities stand for {', '.join(own[:10])}, and the signature says {', '.join(told[:10])}"
    )
    return Judgement(Verdict.FAILED, (reason,))


def _numbers(found: list[_Found], rows: Rows) -> dict[str, Any]:
    return {
        "rows": len(rows),
        "outside": sum(each.outside for each in found),
        "largest_difference": max((each.largest for each in found), default=0.0),
        "refused": sum(each.refused for each in found),
    }


def _table(found: list[_Found]) -> ResultTable:
    rows = tuple(
        (each.path, each.size, each.output or "refused", each.rows, each.largest, each.outside or each.refused)
        for each in found
    )
    return ResultTable(
        "Batch against online", ("path", "asked", "output", "rows", "largest difference", "rows out"), rows
    )


def _plots(found: list[_Found]) -> tuple[Plot, ...]:
    shown = [each for each in found if each.output and np.isfinite(each.largest) and each.largest > 0]
    if not shown:
        return ()
    series = Series(
        "largest difference",
        Mark.BARS,
        tuple(each.largest for each in shown),
        tuple(float(index) for index in range(len(shown))),
        names=tuple(f"{each.output}, {each.path}, {each.size}" for each in shown),
    )
    return (Plot("Batch against online", "largest difference", "", (series,)),)
