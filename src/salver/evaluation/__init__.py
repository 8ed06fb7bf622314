"""Judging a version before it serves: suites, and what they find.

A suite says what a version must be; `evaluate` loads the version as production does, asks it about rows
that were held out, and runs the suite's checks. Each check gives one of four verdicts with its reasons, and
the record of all of them is evidence for a gate. Statistics come from `stats`, and nothing here serves anybody.

What is asked: `suite`, `sections`, `service_sections`, `limits`, `scripts` in Python. Of what: `rows`, `shapes`,
`splits`, `inputs`, `predictions`, `training_rows`, `given`, `serving`, all together a `subject`. By whom: `check`
says what a check is, `results` what it finds, `parts` and `service_parts` which there are, `evaluate` runs them.

The checks. Metrics: `holdout`, `costs`, `slices`, `calibration`. Behaviour: `behaviour`, `minimum`, `robustness`,
`fairness`, with the generators in `perturbations`. Data: `duplicates`, `target_leakage`, `identifiers`, `fit`,
`label_noise`, `validation`, `drift`. Service: `regression`, `contract`, `skew`, `infrastructure`.

Beside a suite: `comparison` and `compared` of two versions, `reproduction` and `remaking` of one. What is left behind:
`records`, `report`, `comparison_report`, `plots`. What is named `..._process` is the main of a child.
"""
