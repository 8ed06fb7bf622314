"""Changes and their doors: what administrators may do, here in process or through the control listener.

What can be asked is a row of `actions`, and an `Administration` has it done: `LocalAdministration` on a
home whose lock this process holds; `RemoteAdministration` by a running server's controller, whose
API (`api`) does it the same way. The command line does not care which it has. `routes` is the table of that API: the
actions, the protocols of other servers (`repository`, `torchserve`), and what carries files (`uploads`).

The controller's loops are here, too: `job_deliveries` and `change_deliveries` tell webhooks, `retraining` answers
verdicts, `republishing` publishes what others have committed, `sealing` signs the journal.
"""
