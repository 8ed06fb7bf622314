"""The checks of service that a suite asks for, beside those of `salver.evaluation.parts`."""

from __future__ import annotations

from collections.abc import Iterator

from salver.evaluation.check import Check
from salver.evaluation.data.validation import DataCheck
from salver.evaluation.service.contract import ContractCheck
from salver.evaluation.service.infrastructure import InfrastructureCheck
from salver.evaluation.service.regression import RegressionCheck
from salver.evaluation.service.skew import SkewCheck
from salver.evaluation.subject.given import Given
from salver.evaluation.suites.service_sections import CasesSettings
from salver.evaluation.suites.suite import Suite

__all__ = ["service_checks"]


def service_checks(suite: Suite, given: Given) -> Iterator[Check]:
    """In the order of the report; a model with regression cases is asked them unless the suite says otherwise."""
    cases = suite.cases or CasesSettings()
    if cases.enabled and (given.cases or cases.required):
        yield RegressionCheck(cases)
    yield from (ContractCheck(settings) for settings in suite.contract)
    if suite.skew is not None:
        yield SkewCheck(suite.skew)
    if suite.data is not None:
        yield DataCheck(suite.data)
    if suite.infrastructure is not None:
        yield InfrastructureCheck(suite.infrastructure)
