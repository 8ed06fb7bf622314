from __future__ import annotations

import asyncio
import os

import pytest

from salver import Server
from salver.protocol.errors import SalverError


def test_a_server_lives_as_long_as_its_block(trees, models) -> None:
    tree = trees()
    tree.salver("register", "double", models / "times2.onnx")
    tree.salver("deploy", "double")
    server = Server(tree.home, environment={"TMPDIR": str(tree.scratch)})
    assert "nowhere yet" in repr(server)

    async def use() -> None:
        async with server:
            tree.ready = {"http": server.http, "control": server.control}
            assert await asyncio.to_thread(tree.predict, "double", [1, 2]) == [2, 4]
            assert server.failed == []
            assert len({server.pid, server.pids["controller"], *server.pids["servers"]}) == 3
            assert server.http in repr(server)
            with pytest.raises(SalverError, match="held by process") as refused:
                async with Server(tree.home, environment={"TMPDIR": str(tree.scratch)}):
                    pass
            assert refused.value.code == "CONFLICT"

    asyncio.run(use())
    tree.until(tree.is_gone, "nothing is left", 5)
    assert tree.left_behind() == []


def test_a_block_that_raises_ends_its_server_and_passes_the_error_on(trees) -> None:
    tree = trees()

    async def use() -> None:
        async with Server(tree.home, environment={"TMPDIR": str(tree.scratch)}):
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        asyncio.run(use())
    tree.until(tree.is_gone, "nothing is left", 5)


def test_a_server_that_refuses_to_start_says_why(tmp_path, capsys) -> None:
    (tmp_path / "thesis.tex").write_text("")

    async def use() -> None:
        async with Server(tmp_path):
            pass

    with pytest.raises(SalverError, match="is no Salver home") as refused:
        asyncio.run(use())
    assert refused.value.code == "REFUSED_BY_POLICY"
    assert os.listdir(tmp_path) == ["thesis.tex"]
    assert "REFUSED_BY_POLICY" in capsys.readouterr().err
