"""Judging a version before it serves: suites, and what they find.

A suite says what a version must be; `evaluate` loads the version as production does, asks it about rows
that were held out, and runs the suite's checks. Each check gives one of four verdicts with its reasons, and
the record of all of them is evidence for a gate. Statistics come from `stats`, and nothing here serves anybody.

`suite` what is asked; `scripts` suites in Python; `rows`, `splits`, `inputs`, `predictions` from a file to
what can be scored; `serving` the version; `checks`, `parts` what a check is, and which there are; `holdout`,
`costs`, `slices`, `calibration` the checks; `records`, `report` what is left behind. `sections` what is asked of
behaviour and of the data; `behaviour`, `minimum`, `robustness`, `fairness`, `duplicates`, `target_leakage`,
`identifiers`, `fit`, `label_noise` the checks that answer.
"""
