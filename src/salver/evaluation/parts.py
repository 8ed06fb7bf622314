"""From the sections of a suite to its checks: the one place that knows every part.

A new part is a section in `salver.evaluation.suites.suite`, a file with its `Check`, and a line here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from salver.evaluation.behaviour.fairness import FairnessCheck
from salver.evaluation.behaviour.invariance import BehaviourCheck
from salver.evaluation.behaviour.minimum import DeclaredCheck
from salver.evaluation.behaviour.perturbations import Perturbation
from salver.evaluation.behaviour.robustness import RobustnessCheck
from salver.evaluation.check import Check
from salver.evaluation.data.duplicates import DuplicateCheck
from salver.evaluation.data.fit import BaselineCheck, OverfitCheck
from salver.evaluation.data.identifiers import IdentifierCheck, LateCheck
from salver.evaluation.data.label_noise import LabelNoiseCheck
from salver.evaluation.data.target_leakage import TargetLeakageCheck
from salver.evaluation.metrics.calibration import CalibrationCheck
from salver.evaluation.metrics.costs import LatencyCheck, SizeCheck
from salver.evaluation.metrics.holdout import MetricCheck
from salver.evaluation.metrics.slices import SliceCheck
from salver.evaluation.subject.splits import SplitCheck
from salver.evaluation.suites.sections import BehaviourSettings
from salver.evaluation.suites.suite import SatisficingSettings, Suite

__all__ = ["checks_of"]


def checks_of(suite: Suite, own: Mapping[str, Perturbation] | None = None) -> list[Check]:
    """The checks that a suite asks for, in the order of the report; `own` are the generators of its script."""
    return list(_checks(suite, own or {}))


def _checks(suite: Suite, own: Mapping[str, Perturbation]) -> Iterator[Check]:
    yield SplitCheck(suite.split, must_be_known=suite.suite.trained_on_other_rows)
    yield from (MetricCheck(settings) for settings in suite.metric)
    yield from map(_cost, suite.satisficing)
    if suite.slices is not None:
        yield SliceCheck(suite.slices)
    if suite.calibration is not None:
        yield CalibrationCheck(suite.calibration)
    yield from (_behaviour(settings, own) for settings in suite.behaviour)
    yield from map(RobustnessCheck, suite.robustness)
    if suite.fairness is not None:
        yield from FairnessCheck.of(suite.fairness)
    if suite.leakage is not None:
        yield from (check(suite.leakage) for check in (DuplicateCheck, TargetLeakageCheck, IdentifierCheck))
    if suite.leakage is not None and suite.leakage.known_at:
        yield LateCheck(suite.leakage)
    if suite.fit is not None:
        yield from (check(suite.fit) for check in (BaselineCheck, OverfitCheck, LabelNoiseCheck))


def _behaviour(settings: BehaviourSettings, own: Mapping[str, Perturbation]) -> Check:
    return BehaviourCheck(settings, own) if settings.generator else DeclaredCheck(settings)


def _cost(settings: SatisficingSettings) -> Check:
    if settings.name == "size_bytes":
        return SizeCheck(settings)
    return LatencyCheck(settings, {"latency_p50_s": 0.5, "latency_p99_s": 0.99}[settings.name])
