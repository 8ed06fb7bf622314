"""What clients and the cache of an endpoint tell each other in headers, over HTTP and gRPC."""

from __future__ import annotations

import json
import re

import msgspec
import pytest
from tests.gateway.grpc.client import Answer, dial
from tests.gateway.grpc.client import row as grpc_row
from tests.gateway.servers import Serve, Served
from tests.gateway.wire import eventually, held_request, row

from salver.clock import SYSTEM_CLOCK
from salver.gateway.caching import read_cache_wish
from salver.gateway.limits import Limits
from salver.protocol.request import CacheWish
from salver.protocol.tables import Tables
from salver.routing.router import Target
from salver.runtime.cache import ResponseCache

INFINITE = float("inf")
KEEPS = {"cache_bytes": 1_000_000, "cache_ttl_s": 60.0}


@pytest.fixture(scope="module")
def cached(serve_model: Serve) -> Served:
    return serve_model(Limits(), **KEEPS)


@pytest.fixture(scope="module")
def grpc_cached(serve_model: Serve) -> Served:
    return serve_model(Limits(), grpc=True, **KEEPS)


def source(headers: dict[str, str]) -> str:
    found = re.match(r'cache;desc="(\w+)", ', headers["server-timing"])
    return found[1] if found else ""


TOLD = "X-Salver-Timing: 1"


def told(*headers: str) -> tuple[str, ...]:
    return (TOLD, *headers)


@pytest.mark.parametrize(
    ("headers", "wish"),
    [
        ({}, None),
        ({b"cache-control": b""}, CacheWish()),
        ({b"cache-control": b"no-cache"}, CacheWish(look=False)),
        ({b"cache-control": b'No-Cache="x, no-store" , foo'}, CacheWish(look=False)),
        ({b"cache-control": b"no-store"}, CacheWish(look=False, keep=False)),
        ({b"cache-control": b"only-if-cached, max-age=5"}, CacheWish(only_kept=True, max_age_s=5.0)),
        ({b"cache-control": b'max-age = "7",min-fresh=3'}, CacheWish(max_age_s=7.0, min_fresh_s=3.0)),
        ({b"cache-control": b"max-age=-1, min-fresh"}, CacheWish(max_age_s=0.0, min_fresh_s=INFINITE)),
        ({b"cache-control": b"max-age=99999999999999"}, CacheWish(max_age_s=0.0)),
        ({b"cache-control": b'=,;;"no-store'}, CacheWish(look=False, keep=False)),
        ({b"cache-control": b"x-no-store, max-stale=9, no-transform"}, CacheWish()),
        ({b"if-none-match": b'W/"a", "b" ,"c,d"'}, CacheWish(unless=frozenset({b"a", b"b", b"c,d"}))),
        ({b"if-none-match": b"*"}, CacheWish(unless=frozenset({b"*"}))),
        ({b"if-none-match": b"a, *"}, CacheWish()),
    ],
)
def test_the_headers_of_a_request_say_what_it_wants_of_the_cache(
    headers: dict[bytes, bytes], wish: CacheWish | None
) -> None:
    assert read_cache_wish(headers) == wish


def test_answers_say_what_may_be_done_with_them_and_where_they_come_from(cached: Served) -> None:
    first = cached.infer(row(1, 1, 1, 1), *told())
    assert first.status == 200
    assert source(first.headers) == "miss"
    assert {"queue", "compute", "total"} <= set(re.findall(r"(\w+);", first.headers["server-timing"]))
    assert re.fullmatch(r'W/"[0-9a-f]{32}"', first.headers["etag"])
    assert first.headers["cache-control"] == "private, max-age=60"
    assert "age" not in first.headers
    again = cached.infer({**row(1, 1, 1, 1), "id": "mine"}, *told())
    assert source(again.headers) == "hit"
    assert re.fullmatch(r'cache;desc="hit", total;dur=\d+\.\d{3}', again.headers["server-timing"])
    assert (again.headers["etag"], again.headers["age"]) == (first.headers["etag"], "0")
    assert again.json == {**first.json, "id": "mine"}, "each request has its own id"
    other = cached.infer(row(1, 2, 1, 2), *told())
    assert source(other.headers) == "miss"
    assert other.headers["etag"] != first.headers["etag"]


def test_json_and_binary_are_two_representations_and_other_spellings_one(cached: Served) -> None:
    nested = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [[2.0, 3, 4e0, 5]]}]}
    tags = [cached.infer(body, *told()).headers["etag"] for body in (row(2, 3, 4, 5), nested)]
    assert tags[0] == tags[1]
    binary = cached.infer({**nested, "parameters": {"binary_data_output": True}}, *told())
    assert source(binary.headers) == "miss"
    assert binary.headers["etag"] != tags[0]
    quiet = cached.infer({**nested, "parameters": {"timeout": 10**6, "priority": 2, "salver_timing": True}})
    assert source(quiet.headers) == "hit"


def test_clients_may_rule_the_cache_out(cached: Served) -> None:
    asked = row(6, 0, 0, 0)
    for headers, wanted in (
        (("Cache-Control: no-store",), ""),
        ((), "miss"),
        ((), "hit"),
        (("Cache-Control: no-cache",), "miss"),
        (("Cache-Control: no-store",), ""),
        (("Cache-Control: max-age=60, only-if-cached",), "hit"),
        (("Cache-Control: min-fresh=61",), "miss"),
    ):
        answer = cached.infer(asked, *told(*headers))
        assert (answer.status, source(answer.headers)) == (200, wanted), headers
        assert ("etag" in answer.headers) == bool(wanted)
    refused = cached.infer(row(7, 0, 0, 0), "Cache-Control: only-if-cached")
    assert (refused.status, refused.code) == (504, "NOT_CACHED")


def test_a_client_that_has_the_answer_is_not_sent_it_again(cached: Served) -> None:
    asked = row(8, 0, 0, 0)
    assert cached.infer(asked, "If-None-Match: *").status == 200, "nothing is kept, so nothing can match"
    tag = cached.infer(asked).headers["etag"]
    for tags in (tag, tag.removeprefix("W/"), f'"x", {tag}', "*"):
        told_so = cached.infer(asked, f"If-None-Match: {tags}")
        assert (told_so.status, told_so.code) == (412, "PRECONDITION_FAILED")
    assert cached.infer(asked, 'If-None-Match: "x"').status == 200


def test_an_endpoint_without_a_cache_reads_no_such_header_and_writes_none(server: Served) -> None:
    answer = server.infer(row(), *told("Cache-Control: only-if-cached", "If-None-Match: *"))
    assert answer.status == 200
    assert source(answer.headers) == ""
    assert not {"etag", "cache-control", "age"} & answer.headers.keys()
    assert server.plane._caches == {}
    client = server.connect()
    client.send(held_request().replace(b"\r\n\r\n", b"\r\nCache-Control: no-store\r\n\r\n", 1))
    eventually(lambda: server.held.asked)
    assert server.held.asked[0][0].cache is None


def test_the_statistics_and_metrics_count_what_the_cache_does(cached: Served) -> None:
    def counts() -> tuple[int, ...]:
        stats = cached.get("/v2/models/toy/stats").json["model_stats"][0]
        spans = stats["inference_stats"]
        return (
            stats["execution_count"],
            *(spans[name]["count"] for name in ("success", "compute_infer", "cache_hit", "cache_miss")),
        )

    before = counts()
    for _ in range(3):
        cached.infer(row(9, 9, 9, 9))
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [1, 3, 1, 2, 1]
    assert cached.get("/v2/models/toy/stats").json["model_stats"][0]["inference_stats"]["cache_hit"]["ns"] > 0
    assert cached.get("/v2/models/toy/config").json["response_cache"] == {"enable": True}
    text = cached.get("/metrics").body.decode()
    scraped = dict(re.findall(r"^salver_cache_(\w+)\{[^}]*\} (\S+)$", text, re.MULTILINE))
    _, _, _, hits, misses = counts()
    assert (float(scraped["hits_total"]), float(scraped["misses_total"])) == (hits, misses)
    assert 0 < float(scraped["bytes"]) <= KEEPS["cache_bytes"]
    assert float(scraped["answers"]) > 0
    assert (scraped["shared_total"], scraped["evictions_total"]) == ("0.0", "0.0")


def test_an_answer_that_json_cannot_carry_fails_each_time_and_is_counted_each_time(cached: Served) -> None:
    asked = json.dumps(row(3e38, 0, 0, 3e38)).encode()

    def counts() -> tuple[int, ...]:
        spans = cached.get("/v2/models/toy/stats").json["model_stats"][0]["inference_stats"]
        return tuple(spans[name]["count"] for name in ("success", "fail", "compute_infer"))

    before = counts()
    for _ in range(3):
        refused = cached.infer(asked)
        assert (refused.status, refused.code) == (500, "NONFINITE_OUTPUT")
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [0, 3, 1]
    assert cached.infer({**json.loads(asked), "parameters": {"binary_data_output": True}}).status == 200


def test_identical_requests_of_two_connections_are_one_for_the_model(serve_model: Serve) -> None:
    server = serve_model(Limits())

    def layer() -> None:
        targets = dict(server.plane.router.targets())
        spec, manifest, service, _ = targets["held"]
        spec = msgspec.structs.replace(spec, cache_bytes=100_000)
        counted = server.gateway.metrics.version("held", "1.0.0")
        targets["held"] = Target(spec, manifest, ResponseCache(service, spec, manifest, counted, SYSTEM_CLOCK))
        server.plane.router.publish(targets, {})

    server.thread.run(layer)
    asked = held_request(parameters={"salver_timing": True})
    leader, other = server.connect(), server.connect()
    leader.send(asked)
    other.send(asked)
    cache = dict(server.plane.router.targets())["held"].service
    counted = server.gateway.metrics.version("held", "1.0.0").cache
    eventually(lambda: counted.shared == 1)
    leader.close()
    server.answer_held()
    assert source(other.read().headers) == "shared"
    assert cache.answers == 1
    assert source(server.ask(asked).headers) == "hit"
    assert not server.held.asked


def test_over_grpc_the_same_is_said_in_metadata(grpc_cached: Served) -> None:
    client = dial(grpc_cached)

    def ask(*headers: tuple[str, str], value: float = 1.0) -> Answer:
        return client.call("ModelInfer", grpc_row(value, 0, 0, 0), headers=[("x-salver-timing", "1"), *headers])

    first, again = ask(), ask()
    assert (source(first.trailers), source(again.trailers)) == ("miss", "hit")
    assert again.trailers["etag"] == first.trailers["etag"]
    assert again.trailers["cache-control"] == "private, max-age=60"
    assert (first.trailers.get("age"), again.trailers["age"]) == (None, "0")
    assert again.messages == first.messages
    assert source(ask(("cache-control", "no-cache")).trailers) == "miss"
    assert ask(("cache-control", "only-if-cached"), value=2.0).code == "NOT_CACHED"
    assert ask(("if-none-match", first.trailers["etag"])).code == "PRECONDITION_FAILED"


def test_what_is_kept_outlives_news_of_other_endpoints_and_goes_with_a_deploy_of_its_own(serve_model: Serve) -> None:
    server = serve_model(Limits(), **KEEPS)
    asked = row(1, 2, 3, 4)
    sources = [source(server.infer(asked, *told()).headers) for _ in range(2)]
    old = dict(server.plane.router.targets())["toy"].service

    def republish(generation: int) -> None:
        wanted = [endpoint.wanted for endpoint in server.plane.host._endpoints.values()]
        specs = [msgspec.structs.replace(spec, generation=generation * (spec.endpoint == "toy")) for spec, _ in wanted]
        server.plane.apply(Tables(generation + 2, tuple(version for _, version in wanted), tuple(specs)))

    for generation in (0, 1):
        server.thread.run(lambda generation=generation: republish(generation))
        server.thread.run(server.plane.host.settled)
        sources.append(source(server.infer(asked, *told()).headers))
    assert sources == ["miss", "hit", "hit", "miss"]
    assert old.answers == old.size_bytes == 0
    assert [cache.answers for cache in server.plane._caches.values()] == [1]
