"""Which versions a list of files makes."""

from __future__ import annotations

from salver.watching.layout import found_versions
from salver.watching.sources import SourceFile


def found(*paths: str) -> dict[str, tuple[str, list[str]]]:
    files = [SourceFile(path, 1, float(at), "s") for at, path in enumerate(paths)]
    return {each.path: (each.root, sorted(each.files)) for each in found_versions(files, "base")}


def test_tritons_repository() -> None:
    assert found(
        "digits/config.pbtxt", "digits/1/model.onnx", "digits/10/model.onnx", "digits/2/model.onnx", "digits/labels.txt"
    ) == {
        "digits/1": ("", ["model.onnx"]),
        "digits/2": ("", ["model.onnx"]),
        "digits/10": ("", ["model.onnx"]),
    }
    assert list(found("m/10/a", "m/9/a", "m/1/a")) == ["m/1", "m/9", "m/10"]


def test_a_directory_that_is_alone_is_the_artifact() -> None:
    assert found("m/1/model.savedmodel/saved_model.pb", "m/1/model.savedmodel/variables/v") == {
        "m/1": ("model.savedmodel", ["saved_model.pb", "variables/v"])
    }
    assert found("m/1/model.onnx/model.onnx", "m/1/model.onnx/data.bin")["m/1"][0] == "model.onnx"
    assert found("m/1/model.onnx", "m/1/extra/data")["m/1"] == ("", ["extra/data", "model.onnx"])


def test_the_base_path_of_tensorflow_serving_and_a_directory_of_several() -> None:
    assert found("1/saved_model.pb", "2/saved_model.pb", "2/variables/v") == {
        "base/1": ("", ["saved_model.pb"]),
        "base/2": ("", ["saved_model.pb", "variables/v"]),
    }
    assert set(found("a/1/saved_model.pb", "b/3/saved_model.pb")) == {"a/1", "b/3"}


def test_what_is_no_version_is_none() -> None:
    for path in ("m/0/x", "m/01/x", "m/v1/x", "m/1", "1", "m/-1/x", "m/1.0/x", "m/a/1/x", "x", f"m/{10**20}/x"):
        assert found(path) == {}, path


def test_a_version_is_as_young_as_its_youngest_file_and_another_when_a_file_is() -> None:
    files = [SourceFile("m/1/a", 1, 5.0, "s"), SourceFile("m/1/b", 1, 9.0, "s")]
    (version,) = found_versions(files, "base")
    assert version.changed_s == 9.0
    (other,) = found_versions([files[0], files[1]._replace(stamp="t")], "base")
    assert version.stamp != other.stamp
