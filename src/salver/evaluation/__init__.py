"""Judging a version before it serves: suites, and what they find.

A suite says what a version must be; `evaluate` loads the version as production does, asks it about rows
that were held out, and runs the suite's checks. Each check gives one of four verdicts with its reasons, and
the record of all of them is evidence for a gate. Statistics come from `stats`, and nothing here serves anybody.

suites/      what is asked: the file, read strictly, or a Python script that writes it
subject/     what is looked at: rows, splits, a served version, what it says
check        what a check is; `parts` and `service_parts` say which there are
metrics/     checks of how good it is
behaviour/   checks of how it behaves when inputs change, and towards groups
data/        checks of whether rows and training can be believed
service/     checks of whether it can take its place
compared/    what `comparison` of two versions finds
reports/     what is left behind: results, records, pages

`reproduction` and `remaking` do one version again. What is named `..._process` is the main of a child.
"""
