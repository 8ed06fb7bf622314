"""Every version and why: what it is, where it stands, what is known of it, and what should be deployed.

Each change takes the principal that asks, checks the operation, and is one transaction with its
record in the journal: what these methods return is on disk, and what they refuse never was.
`records` has one object for each subject, over one database; a file that does not say so there
is of pure functions, or of steps within a transaction that somebody else has opened.

What a version is: `catalog`, `by_number`, `availability`, `draft`, `files`, `shaping`, `numbering`, `compatibility`,
`matrix`, `attestation`, `exported`, `keyring`, `key_changes`, `revocations`. What is said of it: `descriptions`,
`description_rows`, `pages`, `dossier`. Where it stands: `stages`, `lifecycle`, `policy`, `gates`, `candidate`,
`candidacy`, `decisions`, `approvals`, `evidence`, `comparisons`, `failures`, `cases`, `holds`, `in_use`, `ways_back`.
How it goes: `retirement_rules` what is proposed, `retirements` what becomes of that, `breakage` what would break,
`deletions` what is given up.
Where it is found: `resolution`, `search`, `filters`, `fields`, `conditions`, `facts`, `terms`, `semantic`, `card_text`,
`recommendation`, `offers`. What it came from and reached: `lineage`, `lineage_rows`, `impact`, `usage`, `history`,
`stage_history`. What should serve: `deployments`, `deploy_request`, `settings`, `isolations`. Who asks and who is told:
`access_tokens`, `webhooks`, `change_positions`, `retraining`, `retraining_runs`. What is kept: `audit`, `audit_keys`,
`references`, `collection`.
"""
