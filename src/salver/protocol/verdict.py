"""What a judgement says: one of four values, with reasons, and how several become one.

A verdict is never a bool. *Failed* says that the thing is bad and *error* that nobody could look: a dead
source of metrics must not read as a bad release. *Inconclusive* says that the evidence is too thin either
way, so that neither luck passes a version nor noise rejects it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final

import msgspec

__all__ = ["Judgement", "Verdict"]


class Verdict(enum.StrEnum):
    """The four outcomes of a judgement.

    >>> Verdict.worst([Verdict.SUCCESSFUL, Verdict.FAILED, Verdict.INCONCLUSIVE])
    <Verdict.FAILED: 'failed'>
    """

    SUCCESSFUL = "successful"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"

    @classmethod
    def worst(cls, verdicts: Iterable[Verdict]) -> Verdict:
        """The verdict of all together: error before failed before inconclusive before successful.

        Of no verdicts at all it is inconclusive: nothing was judged, so nothing was shown.
        """
        return max(verdicts, key=_SEVERITY.__getitem__, default=cls.INCONCLUSIVE)


_SEVERITY: Final = {
    Verdict.SUCCESSFUL: 0,
    Verdict.INCONCLUSIVE: 1,
    Verdict.FAILED: 2,
    Verdict.ERROR: 3,
}


class Judgement(msgspec.Struct, frozen=True):
    """A verdict and the sentences that explain it.

    >>> Judgement.together([Judgement(Verdict.SUCCESSFUL, ("fast",)), Judgement(Verdict.FAILED, ("wrong",))])
    Judgement(verdict=<Verdict.FAILED: 'failed'>, reasons=('wrong',))
    """

    verdict: Verdict
    reasons: tuple[str, ...] = ()

    @classmethod
    def together(cls, judgements: Iterable[Judgement]) -> Judgement:
        """One judgement of several: the worst verdict, and the reasons of every one that is not successful.

        The reasons stand worst first, otherwise in the order given, each once; when all are successful,
        all their reasons are kept.
        """
        found = list(judgements)
        if not found:
            return cls(Verdict.worst(()), ("nothing was judged",))
        verdict = Verdict.worst(one.verdict for one in found)
        telling = [one for one in found if one.verdict is not Verdict.SUCCESSFUL] or found
        telling.sort(key=lambda one: -_SEVERITY[one.verdict])
        return cls(verdict, tuple(dict.fromkeys(reason for one in telling for reason in one.reasons)))
