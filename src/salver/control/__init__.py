"""Changes and their doors: what administrators may do, here in process or through the control listener.

`Administration` is the one list of actions. `LocalAdministration` carries them out on a home
whose lock this process holds; `RemoteAdministration` asks a running server's controller, whose
API (`api`) carries them out the same way. The command line does not care which it has.
"""
