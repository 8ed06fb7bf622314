from __future__ import annotations

import contextlib
import socket
import ssl
from pathlib import Path

import pytest
import trustme

from salver.config import ServerSettings
from salver.processes.listeners import check_listeners, open_listeners, tls_context
from salver.protocol.errors import SalverError


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A certificate and its key."""
    certificate = trustme.CA().issue_cert("localhost")
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(str(tmp_path / "cert.pem"), append=True)
    return {"tls_cert": str(tmp_path / "cert.pem"), "tls_key": str(tmp_path / "key.pem")}


def settings(**changes: object) -> ServerSettings:
    return ServerSettings(**{"http": 0, "control": 0} | changes)


def test_listeners_are_open_at_the_addresses_they_are_called_by_and_closed_with_their_stack() -> None:
    with contextlib.ExitStack() as stack:
        opened = open_listeners(settings(grpc=0), stack)
        assert opened.grpc is not None
        (http,), (grpc,) = opened.http, opened.grpc
        for listener, called in (
            (http, opened.http_url.removeprefix("http://")),
            (opened.control, opened.control_url.removeprefix("http://")),
            (grpc, opened.grpc_target),
        ):
            host, port = listener.getsockname()
            assert called == f"{host}:{port}"
            socket.create_connection((host, port), timeout=5).close()
    assert http.fileno() == opened.control.fileno() == grpc.fileno() == -1


def test_several_processes_share_one_address_which_nobody_else_can_have_meanwhile() -> None:
    with contextlib.ExitStack() as stack:
        opened = open_listeners(settings(processes=3, grpc=0), stack)
        for listeners in (opened.http, opened.grpc):
            assert len({listener.fileno() for listener in listeners}) == 3
            assert len({listener.getsockname() for listener in listeners}) == 1
        taken = opened.http[0].getsockname()[1]
        with pytest.raises(SalverError, match="Address already in use"):
            open_listeners(settings(processes=3, http=taken), stack)
        # The kernel divides: of so many connections each has some.
        with contextlib.ExitStack() as clients:
            for _ in range(64):
                clients.enter_context(socket.create_connection(("127.0.0.1", taken), timeout=5))
            assert all(_accepted(listener) > 0 for listener in opened.http)
    assert all(listener.fileno() == -1 for listener in (*opened.http, *opened.grpc))


def _accepted(listener: socket.socket) -> int:
    listener.setblocking(False)
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            count += 1
    return count


def test_without_its_port_there_is_no_grpc_listener() -> None:
    with contextlib.ExitStack() as stack:
        opened = open_listeners(settings(), stack)
        assert (opened.grpc, opened.grpc_target) == ((), None)


def test_a_port_that_is_taken_is_refused_by_name_and_what_was_bound_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, contextlib.ExitStack() as stack:
        port = taken.getsockname()[1]
        with pytest.raises(
            SalverError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"
        ) as refused:
            open_listeners(settings(control=port), stack)
    assert refused.value.code == "INVALID_SETTING"


@pytest.mark.parametrize("host", ["256.1.1.1", "no-such-host.invalid", "x" * 300, "a..b"])
def test_an_address_that_is_none_is_refused(host) -> None:
    with contextlib.ExitStack() as stack, pytest.raises(SalverError, match="cannot listen on") as refused:
        open_listeners(settings(host=host), stack)
    assert refused.value.code == "INVALID_SETTING"


def test_loopback_is_safe_without_anything() -> None:
    assert check_listeners(settings()) is False


@pytest.mark.parametrize("place", ["host", "control_host"])
def test_elsewhere_without_tls_only_insecure_helps(place, files) -> None:
    with pytest.raises(SalverError) as refused:
        check_listeners(settings(**{place: "0.0.0.0"}))
    assert refused.value.code == "REFUSED_BY_POLICY"
    assert check_listeners(settings(**{place: "0.0.0.0"}, insecure=True)) is True
    assert check_listeners(settings(**{place: "0.0.0.0"}, require_token=True, **files)) is False


def test_tls_is_spoken_from_1_2_on_and_only_where_it_was_asked_for(files) -> None:
    assert tls_context(settings()) is None
    context = tls_context(settings(**files))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("damage", ["missing", "empty", "swapped"])
def test_a_certificate_or_key_that_cannot_be_used_is_refused_before_anything_is_opened(files, damage) -> None:
    if damage == "missing":
        Path(files["tls_key"]).unlink()
    elif damage == "empty":
        Path(files["tls_cert"]).write_text("")
    else:
        files = {"tls_cert": files["tls_key"], "tls_key": files["tls_cert"]}
    with pytest.raises(SalverError, match="cannot be used") as refused:
        check_listeners(settings(**files))
    assert refused.value.code == "INVALID_SETTING"
