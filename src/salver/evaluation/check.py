"""What a part of a suite is: an object with a name that looks at a subject and says what it found."""

from __future__ import annotations

from typing import Protocol

from salver.evaluation.reports.results import CheckResult, Role
from salver.evaluation.subject.subject import Subject

__all__ = ["Check"]


class Check(Protocol):
    """One part of a suite.

    Obligations: `run` changes nothing, takes its randomness from `Subject.rng` and time from
    `Subject.clock`, and gives a verdict: *failed* and *successful* only where the rows suffice to tell,
    else *inconclusive*. What it raises becomes the verdict *error*, and the other checks go on.
    """

    @property
    def name(self) -> str:
        """What it is called in records; unique in a suite."""

    @property
    def role(self) -> Role:
        """What it is to the decision."""

    def run(self, subject: Subject) -> CheckResult:
        """Look at the subject."""
