"""Contract tests: what clients once sent is sent again, and what they rely on must still hold.

The answer must have the same outputs of the same types and shapes, what was refused is refused with the same code,
and so many labels are the same. Numbers may move where a model is trained anew, so they are held to a bound only
where the suite gives one. The recorded exchanges are what they are: shares of them are not estimated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from salver.evaluation.reports.results import CheckResult, ResultTable, Role
from salver.evaluation.subject.exchanges import is_label, text_of
from salver.evaluation.subject.rows import Array
from salver.evaluation.subject.subject import Subject
from salver.evaluation.subject.traffic import Recorded, RecordedOutput, read_traffic
from salver.evaluation.suites.service_sections import ContractSettings
from salver.protocol.datatypes import datatype_of
from salver.protocol.errors import CATALOGUE, SalverError
from salver.protocol.verdict import Judgement, Verdict

__all__ = ["ContractCheck"]

_BAD_REQUEST: Final = 400
_OF_THE_MODEL: Final = ("MODEL_ERROR", "BAD_MODEL_OUTPUT", "NONFINITE_OUTPUT")
_EXAMPLES: Final = 20


@dataclass
class _Tally:
    """What the exchanges came to."""

    replayed: int = 0
    unusable: int = 0
    """Refused for the server's sake, as when too much was waiting: nothing that a version answers for."""
    broken: list[tuple[int, str]] = field(default_factory=list)
    """Exchanges whose answer is of another form than it was."""
    labels: int = 0
    labels_same: int = 0
    numbers: int = 0
    within: int = 0
    largest: float = 0.0
    moved: list[tuple[int, str]] = field(default_factory=list)


class ContractCheck:
    """Recorded exchanges, replayed against a version."""

    role = Role.SAFEGUARD

    def __init__(self, settings: ContractSettings) -> None:
        self.name = settings.name
        self._settings = settings

    def run(self, subject: Subject) -> CheckResult:
        """Send every request again."""
        settings, tally = self._settings, _Tally()
        for index, exchange in enumerate(read_traffic(Path(settings.traffic))):
            self._replay(index, exchange, subject, tally)
        found = Judgement.together(self._judgements(tally))
        numbers: dict[str, Any] = {
            "exchanges": tally.replayed,
            "unusable": tally.unusable,
            "broken": len(tally.broken),
            "labels": tally.labels,
            "labels_agree": tally.labels_same / tally.labels if tally.labels else None,
            "numbers": tally.numbers,
            "within": tally.within / tally.numbers if tally.numbers else None,
            "largest_difference": tally.largest,
        }
        shown = tuple((index + 1, why) for index, why in (tally.broken + tally.moved)[:_EXAMPLES])
        table = ResultTable("Exchanges that differ, the first ones", ("exchange", "what"), shown)
        return CheckResult(found.verdict, found.reasons, numbers, (table,) if shown else ())

    def _replay(self, index: int, exchange: Recorded, subject: Subject, tally: _Tally) -> None:
        if exchange.error and not _is_of_the_version(exchange.error):
            tally.unusable += 1
            return
        tally.replayed += 1
        try:
            outputs = subject.asked.served.exchange(bytes(exchange.request))
        except SalverError as error:
            if exchange.error != error.code:
                was = f"refused with {exchange.error}" if exchange.error else "answered"
                tally.broken.append((index, f"was {was}, is refused with {error.code}: {error.message[:200]}"))
            return
        if exchange.error:
            tally.broken.append((index, f"was refused with {exchange.error}, is answered"))
            return
        changes = list(_changes_of_form(exchange.outputs, outputs))
        if changes:
            tally.broken.append((index, "; ".join(changes)))
        for name, recorded in exchange.outputs.items():
            if name in outputs and not changes:
                self._compare(index, name, recorded, outputs[name], tally)

    def _compare(self, index: int, name: str, was: RecordedOutput, now: Array, tally: _Tally) -> None:
        if is_label(now):
            said, wanted = text_of(now).reshape(-1), _recorded_text(was)
            same = int(np.sum(said == wanted))
            tally.labels += len(said)
            tally.labels_same += same
            if same < len(said):
                first = int(np.flatnonzero(said != wanted)[0])
                tally.moved.append((index, f"{name} was {wanted[first]}, is {said[first]}"))
            return
        off = np.abs(now.astype(np.float64).reshape(-1) - np.array(was.data, dtype=np.float64).reshape(-1))
        off = np.nan_to_num(off, nan=np.inf)
        tally.numbers += len(off)
        tally.largest = max(tally.largest, float(off.max(initial=0.0)))
        bound = np.inf if self._settings.tolerance is None else self._settings.tolerance
        tally.within += int(np.sum(off <= bound))
        if (off > bound).any():
            tally.moved.append((index, f"{name} moved by up to {off.max():.4g}"))

    def _judgements(self, tally: _Tally) -> Iterator[Judgement]:
        settings = self._settings
        if tally.replayed < settings.exchanges_at_least:
            enough = f"{tally.replayed} exchanges can be replayed, and {settings.exchanges_at_least} are asked for"
            yield Judgement(Verdict.INCONCLUSIVE, (enough,))
        if tally.broken:
            kinds = Counter(why for _, why in tally.broken)
            named = tuple(f"{count} of {tally.replayed} exchanges: {why}" for why, count in kinds.most_common(3))
            yield Judgement(Verdict.FAILED, named)
        else:
            yield Judgement(Verdict.SUCCESSFUL, (f"{tally.replayed} exchanges have answers of the form they had",))
        if tally.labels:
            share = tally.labels_same / tally.labels
            said = f"{share:.1%} of {tally.labels} labels agree, wanted at least {settings.labels_agree_at_least:.1%}"
            agrees = share >= settings.labels_agree_at_least
            yield Judgement(Verdict.SUCCESSFUL if agrees else Verdict.FAILED, (said,))
        if tally.numbers and settings.tolerance is not None:
            share = tally.within / tally.numbers
            said = (
                f"{share:.1%} of {tally.numbers} numbers moved by at most {settings.tolerance:g}, "
                f"wanted at least {settings.within_at_least:.1%}"
            )
            within = share >= settings.within_at_least
            yield Judgement(Verdict.SUCCESSFUL if within else Verdict.FAILED, (said,))


def _is_of_the_version(code: str) -> bool:
    """Whether a refusal is of the request or of the model; any other tells of the server, its load or its clients."""
    known = CATALOGUE.get(code)
    return code in _OF_THE_MODEL or (known is not None and known.http == _BAD_REQUEST)


def _changes_of_form(was: dict[str, RecordedOutput], now: dict[str, Array]) -> Iterator[str]:
    for name in was.keys() - now.keys():
        yield f"output {name!r} is gone"
    # More outputs than there were hurt no client.
    for name, recorded in was.items():
        if name not in now:
            continue
        datatype = datatype_of(now[name])
        if datatype != recorded.datatype:
            yield f"output {name!r} was {recorded.datatype}, is {datatype}"
        elif tuple(now[name].shape) != recorded.shape:
            yield f"output {name!r} had shape {list(recorded.shape)}, has {list(now[name].shape)}"


def _recorded_text(was: RecordedOutput) -> Array:
    return text_of(np.array(_flat(was.data), dtype=object))


def _flat(data: Any) -> list[Any]:
    if not isinstance(data, list):
        return [data]
    return [item for each in data for item in _flat(each)] if any(isinstance(each, list) for each in data) else data
