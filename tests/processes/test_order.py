from __future__ import annotations

import os
import threading
from pathlib import Path

import msgspec
import pytest

from salver.config import Settings
from salver.processes.order import Order, Report, tell, write_order
from salver.storage.home import Serving


@pytest.fixture
def order(tmp_path: Path) -> Order:
    return Order("/home", str(tmp_path), Settings(), (3, 6), (), 4, 5, -1, supervisor_pid=7, credentials_in_clear=True)


def test_a_child_reads_the_order_that_was_written(order, tmp_path) -> None:
    write_order(order, tmp_path / "order")
    assert msgspec.json.decode((tmp_path / "order").read_bytes(), type=Order) == order


def test_everything_of_a_run_is_in_its_directory_under_names_of_its_own(order, tmp_path) -> None:
    names = [str(order.pulse_path), str(order.places_path), order.control_socket]
    for slot in (0, 1):
        own = order.of(slot)
        names += [str(own.recorder_path), own.server_socket, str(own.counts_path)]
    assert len(set(names)) == 9
    assert {Path(name).parent for name in names} == {tmp_path}


def test_commands_find_the_controller_where_its_order_says(order) -> None:
    assert Serving(1, None, None, run_dir=order.run_dir).control_socket == order.control_socket


def test_a_report_larger_than_the_pipe_arrives_whole(order) -> None:
    read_end, write_end = os.pipe()
    report = Report(failed=tuple({"error": "x" * 100} for _ in range(5000)), workers=(1, 2))
    told = threading.Thread(target=tell, args=(msgspec.structs.replace(order, ready_fd=write_end), report))
    told.start()
    with os.fdopen(read_end, "rb") as pipe:
        line = pipe.readline()
    told.join()
    os.close(write_end)
    assert len(line) > 2**19
    assert msgspec.json.decode(line, type=Report) == report
