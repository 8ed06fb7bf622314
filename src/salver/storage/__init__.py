"""Bytes and records that outlive a process.

One data directory, the `Home`, holds everything, unless its `storage.toml` says otherwise: content-addressed blobs, the
published tables, secrets, and a database with the registry and the audit journal. What these modules acknowledge is on
disk; what they hand out was checked against its digest.

The server process imports what is free of SQLAlchemy. The database is for the controller and the command line.
"""
