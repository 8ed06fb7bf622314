from __future__ import annotations

import msgspec
import pytest

from salver.protocol.errors import SalverError
from salver.protocol.formats import PROVIDERS
from salver.protocol.tables import DeploymentSpec, Placement, RuntimeOptions
from salver.registry.settings import RANGES, check_settings, check_settings_of_format

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


@pytest.mark.parametrize("name", ["replicas", "max_batch", "max_queue", "runtime.threads"])
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
