"""A place in an S3-compatible service, through `obstore`.

Every request has a time limit and is sent again a bounded number of times. What a service says when it
refuses may hold keys and addresses, so of that only the status and the error's name are told.
"""

from __future__ import annotations

import contextlib
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from salver.protocol.errors import SalverError
from salver.storage.remote_blobs import Listed
from salver.storage.settings import S3Settings

if TYPE_CHECKING:
    from obstore.store import S3Store

__all__ = ["S3Bucket"]

_PART_BYTES: Final = 8 << 20
_PARTS_AT_ONCE: Final = 4
_CONNECT_S: Final = 5.0
_STATUS: Final = re.compile(r"status code: (\d{3})")
_NAMED: Final = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")


class S3Bucket:
    """The objects of one bucket below one prefix. Credentials come from the environment."""

    def __init__(self, url: str, settings: S3Settings) -> None:
        self.url = url.rstrip("/")
        bucket, _, prefix = self.url.removeprefix("s3://").partition("/")
        self._store = _connect(bucket, prefix, settings)
        # Not of each `pieces`: one that nobody reads to its end is closed where the garbage collector finds it, maybe
        # while a thread is being started; who waits for threads there may wait for himself.
        self._threads = ThreadPoolExecutor(_PARTS_AT_ONCE, thread_name_prefix="salver s3")

    def __repr__(self) -> str:
        return f"<S3Bucket {self.url}>"

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        from obstore.exceptions import BaseError  # noqa: PLC0415 - an extra

        try:
            yield
        except FileNotFoundError as error:
            raise self._unavailable("has no such bucket", error) from None
        except (BaseError, OSError, RuntimeError) as error:
            raise self._unavailable("does not answer as it should", error) from None

    def _unavailable(self, what: str, error: Exception) -> SalverError:
        said = [found[1] for pattern in (_STATUS, _NAMED) if (found := pattern.search(str(error)))]
        return SalverError(
            "STORE_UNAVAILABLE",
            f"the artifact store {self.url} {what}: {' '.join(said) or type(error).__name__}",
            "see that the service runs and that the credentials in the environment may use this bucket; "
            "versions that are cached on this machine load all the same",
        )

    def head(self, name: str) -> Listed | None:
        """What an object is; None where there is none."""
        import obstore  # noqa: PLC0415 - an extra

        with self._asking():
            try:
                found = obstore.head(self._store, name)
            except FileNotFoundError:
                return None
        return Listed(name, found["size"], found["last_modified"].timestamp(), found["e_tag"] or "")

    def read(self, name: str, largest_bytes: int) -> bytes | None:
        """A small object; None where there is none. Raises CORRUPT_ARTIFACT for one that is larger."""
        import obstore  # noqa: PLC0415 - an extra

        with self._asking():
            try:
                found = obstore.get(self._store, name)
                if found.meta["size"] > largest_bytes:
                    raise SalverError("CORRUPT_ARTIFACT", f"object {name} of {self.url} is larger than it may be")
                return bytes(found.bytes())
            except FileNotFoundError:
                return None

    def pieces(self, listed: Listed) -> Iterator[bytes]:
        """A large object, in several requests of bounded size."""
        starts = iter(range(0, listed.size_bytes, _PART_BYTES))
        coming = deque(self._threads.submit(self._part, listed, start) for start in islice(starts, _PARTS_AT_ONCE))
        try:
            while coming:
                yield coming.popleft().result()
                coming += (self._threads.submit(self._part, listed, start) for start in islice(starts, 1))
        finally:
            for part in coming:
                part.cancel()

    def _part(self, listed: Listed, start: int) -> bytes:
        import obstore  # noqa: PLC0415 - an extra

        length = min(_PART_BYTES, listed.size_bytes - start)
        with self._asking():
            part = obstore.get_range(self._store, listed.name, start=start, length=length)
        if len(part) != length:
            raise self._unavailable("sends less than it was asked for", EOFError())
        return bytes(part)

    def write(self, name: str, data: bytes, *, create: bool = False) -> bool:
        """Write an object whole; with `create` only where there is none. Whether it was written."""
        import obstore  # noqa: PLC0415 - an extra
        from obstore.exceptions import AlreadyExistsError  # noqa: PLC0415

        with self._asking():
            try:
                obstore.put(self._store, name, data, mode="create" if create else "overwrite", use_multipart=False)
            except AlreadyExistsError:
                return False
        return True

    def write_large(self, name: str, pieces: Iterator[bytes]) -> None:
        """Write an object in parts; there is none before the last one has come. What `pieces` raises is raised."""
        import obstore  # noqa: PLC0415 - an extra

        raised: list[Exception] = []
        with self._asking():
            try:
                obstore.put(
                    self._store,
                    name,
                    _remembering(pieces, raised.append),
                    use_multipart=True,
                    chunk_size=_PART_BYTES,
                    max_concurrency=_PARTS_AT_ONCE,
                )
            except Exception:
                if raised:
                    raise raised[0] from None
                raise

    def remove(self, name: str) -> None:
        """Remove an object, there or not."""
        import obstore  # noqa: PLC0415 - an extra

        with self._asking(), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, name)

    def list(self) -> Iterator[Listed]:
        """All objects below the prefix."""
        import obstore  # noqa: PLC0415 - an extra

        batches = iter(obstore.list(self._store))
        while True:
            with self._asking():
                batch = next(batches, None)
            if batch is None:
                return
            for found in batch:
                yield Listed(found["path"], found["size"], found["last_modified"].timestamp(), found["e_tag"] or "")


def _connect(bucket: str, prefix: str, settings: S3Settings) -> S3Store:
    try:
        from obstore.store import S3Store  # noqa: PLC0415 - an extra
    except ImportError:
        raise SalverError(
            "UNSUPPORTED", "artifacts in S3 need the package obstore", "pip install 'salver[s3]'"
        ) from None
    options: dict[str, Any] = {"endpoint": settings.endpoint.rstrip("/")} if settings.endpoint else {}
    return S3Store(
        bucket,
        prefix=prefix or None,
        region=settings.region,
        # One request a time, whatever the service can do: some cannot delete in bulk.
        disable_bulk_delete=True,
        client_options={
            "timeout": timedelta(seconds=settings.timeout_s),
            "connect_timeout": timedelta(seconds=min(_CONNECT_S, settings.timeout_s)),
            "allow_http": settings.allow_http,
        },
        retry_config={
            "max_retries": settings.retries,
            "retry_timeout": timedelta(seconds=settings.timeout_s * (settings.retries + 1)),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=2),
                "base": 2,
            },
        },
        **options,
    )


def _remembering(pieces: Iterator[bytes], raised: Callable[[Exception], None]) -> Iterator[bytes]:
    try:
        yield from pieces
    except Exception as error:
        raised(error)
        raise
