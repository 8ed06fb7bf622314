"""What the parts are wired to."""

from __future__ import annotations

from collections import Counter

from tests.flows.house import House


async def test_every_route_of_the_data_listener_stands_there_once(house: House) -> None:
    await house.open()
    routes = Counter((route.method, route.template) for route in house.plane.gateway.routes.routes)
    assert [route for route, number in routes.items() if number > 1] == []
    assert len(routes) > 50
