from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.conftest import until
from tests.control.listening import listening
from tests.registry.promoting import person

from salver.control.places import AT_ONCE, Places, Turns
from salver.protocol.errors import SalverError
from salver.storage.verification import ChainCheck
from salver.testing import ManualLoop

ANN, BEN, EVE = person("ann"), person("ben"), person("eve")


def test_one_principal_gets_half_of_the_places_and_is_told_what_to_do() -> None:
    places = Places("uploads", 8)
    for _ in range(4):
        places.take(EVE)
    with pytest.raises(SalverError) as refused:
        places.take(EVE)
    assert refused.value.code == "QUEUE_FULL"
    assert str(refused.value) == (
        "eve has 4 of the 8 places for uploads, the most for one principal; "
        "wait for one of its own to end, and repeat it then"
    )
    for _ in range(4):
        places.take(ANN)
    with pytest.raises(SalverError, match="8 uploads are under way, the most at one time"):
        places.take(BEN)


def test_another_token_of_the_same_name_is_no_other_principal() -> None:
    places = Places("uploads", 2)
    places.take(person("eve", "developer"))
    with pytest.raises(SalverError, match="eve has 1 of the 2"):
        places.take(person("eve", "operator"))


def test_a_place_comes_back_once() -> None:
    places = Places("uploads", 4)
    first, _ = places.take(EVE), places.take(EVE)
    first()
    first()
    places.take(EVE)
    with pytest.raises(SalverError):
        places.take(EVE)


def test_of_one_place_everybody_may_have_it() -> None:
    Places("uploads", 1).take(EVE)()


def test_threads_do_not_get_more_than_there_is() -> None:
    places = Places("uploads", 16)

    def take(number: int) -> bool:
        try:
            places.take(person(f"p{number % 8}"))
        except SalverError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(400))) == 16


def test_one_principal_does_not_keep_the_others_waiting(tmp_path, monkeypatch) -> None:
    """Threads are forty and connections to the database fifteen; what is slow here is slow because of its size."""
    with listening(tmp_path / "home") as served:
        eve, ann = served.token("approver", "eve"), served.token("operator", "ann")
        end, running, most = threading.Event(), [], []

        def slowly(*_given, **_options) -> ChainCheck:
            running.append(1)
            most.append(len(running))
            end.wait(30)
            running.pop()
            return ChainCheck.sound(0)

        monkeypatch.setattr(served.admin.records.audit, "verify", slowly)
        with ThreadPoolExecutor(50) as pool:
            asked = [pool.submit(served.ask, "GET", "/v1/audit/verification", token=eve) for _ in range(50)]
            until(lambda: running, "eve's checks run")
            try:
                answer = served.ask("GET", "/v1/models", token=ann)
            finally:
                end.set()
            assert answer.status == 200
            assert {each.result().status for each in asked} == {200}, "they waited for their turn"
        assert max(most) == AT_ONCE


def test_so_many_of_one_principal_wait_for_their_turn_and_no_more(run) -> None:
    async def body(_: ManualLoop) -> None:
        turns = Turns(1)
        async with contextlib.AsyncExitStack() as here:
            await here.enter_async_context(turns.of(EVE))
            waiting = [asyncio.ensure_future(turns.of(EVE).__aenter__()) for _ in range(63)]
            await asyncio.sleep(0)
            with pytest.raises(SalverError, match="eve has 64 requests waiting") as refused:
                await here.enter_async_context(turns.of(EVE))
            assert refused.value.code == "QUEUE_FULL"
            await here.enter_async_context(turns.of(ANN))
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            await asyncio.sleep(0)
        async with turns.of(EVE):
            assert set(turns._turns) == {"eve"}
        assert not turns._turns

    run(body)
