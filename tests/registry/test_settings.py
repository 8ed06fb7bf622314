from __future__ import annotations

import msgspec
import pytest

from salver.protocol.errors import SalverError
from salver.protocol.formats import PROVIDERS
from salver.protocol.tables import BatchPolicy, DeploymentSpec, Placement, QueuePolicy, RuntimeOptions, StateSpec
from salver.registry.settings import RANGES, check_settings, check_settings_of_format, check_settings_of_version
from salver.testing import make_manifest, make_spec

SPEC = DeploymentSpec("digits", "digits", "1.0.0")


def with_setting(name: str, value: object) -> DeploymentSpec:
    section, _, field = name.rpartition(".")
    if section:
        return msgspec.structs.replace(SPEC, runtime=msgspec.structs.replace(SPEC.runtime, **{field: value}))
    return msgspec.structs.replace(SPEC, **{field: value})


def numbers(struct: msgspec.Struct, prefix: str = "") -> set[str]:
    found: set[str] = set()
    for field in struct.__struct_fields__:
        value = getattr(struct, field)
        if isinstance(value, msgspec.Struct):
            found |= numbers(value, f"{field}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.add(prefix + field)
    return found


def test_every_number_of_a_deployment_has_a_range_that_holds_its_default() -> None:
    assert set(RANGES) == numbers(SPEC) - {"generation"}
    assert check_settings(SPEC) == SPEC


@pytest.mark.parametrize("name", RANGES)
def test_a_number_outside_its_range_is_refused_with_its_name_value_and_range(name: str) -> None:
    low, high = RANGES[name]
    for value in (low - 1, int(high) + 1):
        with pytest.raises(SalverError) as raised:
            check_settings(with_setting(name, value))
        assert raised.value.code == "INVALID_SETTING"
        assert f"setting {name} is {value}" in raised.value.message
        assert "give a number from" in raised.value.remedy


@pytest.mark.parametrize("name", ["replicas", "max_batch", "max_queue", "max_streams", "runtime.threads"])
def test_both_ends_of_a_range_are_allowed(name: str) -> None:
    for value in RANGES[name]:
        check_settings(with_setting(name, int(value)))


@pytest.mark.parametrize("name", ["max_wait_s", "deadline_s", "hang_s", "load_timeout_s"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_times_are_finite(name: str, value: float) -> None:
    with pytest.raises(SalverError):
        check_settings(with_setting(name, value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("replicas", "3"),
        ("replicas", 1.5),
        ("placement", "moon"),
        ("validate", "sometimes"),
        ("required", "yes"),
        ("runtime.providers", ()),
        ("runtime.providers", ("A", "A")),
        ("runtime.optimization", "extreme"),
        ("runtime.pin", (-1,)),
        ("runtime.pin", (3, 3)),
        ("runtime.pin", (100_000,)),
    ],
)
def test_values_of_another_kind_are_refused(name: str, value: object) -> None:
    with pytest.raises(SalverError) as raised:
        check_settings(with_setting(name, value))
    assert raised.value.code == "INVALID_SETTING"
    assert name.rpartition(".")[2] in str(raised.value)


def test_a_wait_as_long_as_the_deadline_is_refused() -> None:
    spec = msgspec.structs.replace(SPEC, max_wait_s=2.0, deadline_s=2.0)
    with pytest.raises(SalverError, match=r"max_wait_s is 2\.0; lower it below deadline_s, which is 2"):
        check_settings(spec)


def test_a_provider_that_no_build_has_is_refused_with_those_that_sound_like_it() -> None:
    with pytest.raises(SalverError, match=r"runtime.providers is CudaProvider; use CUDAExecutionProvider$"):
        check_settings(with_setting("runtime.providers", ("CudaProvider", "CPUExecutionProvider")))
    with pytest.raises(SalverError, match=r"moon; use one of CPUExecutionProvider, CUDA"):
        check_settings(with_setting("runtime.providers", ("moon",)))
    check_settings(with_setting("runtime.providers", ("CUDAExecutionProvider", "CPUExecutionProvider")))


def test_every_provider_that_onnx_runtime_knows_may_be_named() -> None:
    import onnxruntime

    assert set(onnxruntime.get_all_providers()) <= set(PROVIDERS)


@pytest.mark.parametrize(
    ("name", "value"), [("runtime.providers", ("CUDAExecutionProvider",)), ("runtime.optimization", "basic")]
)
def test_settings_of_graphs_are_refused_for_formats_without_graphs(name: str, value: object) -> None:
    given = with_setting(name, value)
    check_settings_of_format(given, "onnx")
    for other in ("sklearn", "python"):
        check_settings_of_format(SPEC, other)
        with pytest.raises(SalverError, match=f"{name} is .*, which means nothing to a version of format {other}"):
            check_settings_of_format(given, other)


def test_values_get_their_declared_type() -> None:
    spec = check_settings(with_setting("placement", "thread"))
    assert spec.placement is Placement.THREAD
    assert check_settings(with_setting("runtime.pin", (0, 2))).runtime == RuntimeOptions(pin=(0, 2))


def test_a_cache_is_refused_for_a_version_that_is_not_idempotent() -> None:
    spec = with_setting("cache_bytes", 1000)
    check_settings_of_version(spec, make_manifest())
    acting = make_manifest(idempotent=False)
    check_settings_of_version(SPEC, acting)
    with pytest.raises(SalverError, match=r"cache_bytes is 1000, but arithmetic@1\.0\.0 declares .* not idempotent"):
        check_settings_of_version(spec, acting)
    with pytest.raises(SalverError, match=r"cache_bytes is 1000, but arithmetic@1\.0\.0 is of kind sequence"):
        check_settings_of_version(spec, make_manifest(kind="sequence"))


def changed(**settings: object) -> DeploymentSpec:
    return msgspec.structs.replace(SPEC, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"policy": "timeout", "max_wait_s": 0.005},
        {"policy": "hybrid", "max_wait_s": 0.005},
        {"policy": "hybrid", "max_wait_s": 0.005, "min_batch": 256},
        {"policy": "predictive"},
        {"policy": "predictive", "max_wait_s": 0.005},
        {"policy": "deferred", "slo_s": 0.1},
        {"policy": "eager", "slo_s": 0.1, "max_age_s": 1.0},
    ],
)
def test_every_policy_is_taken_with_what_it_needs(settings: dict[str, object]) -> None:
    assert check_settings(changed(**settings)).policy is BatchPolicy(str(settings["policy"]))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"max_wait_s": 0.005}, r"max_wait_s is 0\.005; policy eager does not heed it; set policy timeout"),
        ({"policy": "deferred", "slo_s": 0.1, "max_wait_s": 0.005}, "policy deferred does not heed it"),
        ({"policy": "timeout"}, r"max_wait_s is 0\.0; policy timeout needs one"),
        ({"policy": "hybrid", "min_batch": 8}, "policy hybrid needs one"),
        ({"policy": "deferred"}, r"slo_s is 0\.0; policy deferred needs an objective"),
        ({"min_batch": 8}, "min_batch is 8; only policy hybrid heeds it"),
        ({"policy": "predictive", "min_batch": 8}, "only policy hybrid heeds it"),
        (
            {"policy": "hybrid", "max_wait_s": 0.1, "min_batch": 300},
            "min_batch is 300; lower it to max_batch, which is 256",
        ),
        ({"policy": "someday"}, "someday"),
        ({"policy": "timeout", "max_wait_s": 5.0, "deadline_s": 4.0}, "lower it below deadline_s, which is 4"),
    ],
)
def test_a_setting_that_the_policy_does_not_heed_or_that_it_lacks_is_refused(settings, says: str) -> None:
    with pytest.raises(SalverError, match=says) as raised:
        check_settings(changed(**settings))
    assert raised.value.code == "INVALID_SETTING"


def test_priorities_are_levels_with_bounds_of_their_own_and_values_get_their_type() -> None:
    spec = check_settings(changed(priorities=({"max_queue": 5}, {}, {"max_age_s": 1, "deadline_s": 2.5})))
    assert spec.priorities == (QueuePolicy(max_queue=5), QueuePolicy(), QueuePolicy(max_age_s=1.0, deadline_s=2.5))
    check_settings(changed(priorities=(QueuePolicy(),) * 16))


@pytest.mark.parametrize(
    ("levels", "says"),
    [
        ((QueuePolicy(),) * 17, "priorities is 17 levels; use at most 16"),
        ((QueuePolicy(), QueuePolicy(max_queue=-1)), r"priorities\[2\]\.max_queue is -1; give a number to 1e\+06"),
        ((QueuePolicy(max_queue=1_000_001),), r"priorities\[1\]\.max_queue is 1000001"),
        ((QueuePolicy(max_age_s=-0.1),), r"priorities\[1\]\.max_age_s is -0\.1"),
        ((QueuePolicy(deadline_s=1e6),), r"priorities\[1\]\.deadline_s is 1000000\.0"),
        ((QueuePolicy(deadline_s=float("nan")),), "priorities"),
        (({"max_queue": 1.5},), "max_queue"),
        (({"patience_s": 1},), "patience_s"),
        (("high", "low"), "priorities"),
    ],
)
def test_a_level_that_is_none_is_refused(levels: tuple[object, ...], says: str) -> None:
    with pytest.raises(SalverError, match=says) as raised:
        check_settings(changed(priorities=levels))
    assert raised.value.code == "INVALID_SETTING"


@pytest.mark.parametrize(("sessions", "problem"), [(65_536, ""), (65_537, "takes 1024 bytes; use at most 65536")])
def test_the_states_of_all_sessions_fit_into_the_memory_of_a_worker(sessions: int, problem: str) -> None:
    manifest = make_manifest(kind="sequence", idempotent=False, states=(StateSpec("s", "sN", "FP32", (2, -1, 128)),))
    spec = make_spec(max_sessions=sessions, worker_memory_bytes=2**26)
    if not problem:
        check_settings_of_version(spec, manifest)
        return
    with pytest.raises(SalverError, match=problem):
        check_settings_of_version(spec, manifest)


@pytest.mark.parametrize(
    "labels",
    [("a", "a"), ("",), ("a/b",), ("a b",), ("none",), ("x" * 65,), ("-a",), (1,), tuple(f"l{n}" for n in range(17))],
)
def test_a_label_is_a_short_name_and_there_are_few(labels: tuple[object, ...]) -> None:
    check_settings(changed(labels=("stable", "Q1.a-b_c", "x" * 64)))
    with pytest.raises(SalverError, match="labels") as raised:
        check_settings(changed(labels=labels))
    assert raised.value.code == "INVALID_SETTING"
