"""What the evidence says of a version: a model card, a data sheet, a readiness checklist.

Nothing here is typed in: a card is a pure function of the dossier that the registry keeps, a sheet of a profile and a
table of data, a point of the checklist of the dossier again. Where nothing is known they say so.

`document` what is written, as data; `render` as HTML and Markdown; `card`, `card_evidence` the card; `sheet`,
`table_facts`, `drift` the data sheet; `checklist`, `points`, `proof_points`, `service_points` the checklist; `gate` the
checklist as a gate.
"""
