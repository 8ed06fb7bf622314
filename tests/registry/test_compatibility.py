"""What counts as which change, seen by those who call a version."""

from __future__ import annotations

import msgspec
import pytest

from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import FileEntry, VersionManifest
from salver.registry.compatibility import Change, Level, changes, level_of
from salver.testing import make_manifest

X = TensorSpec("x", "FP32", (-1, 4))
NOTE = TensorSpec("note", "BYTES", (-1,), optional=True)
Y = TensorSpec("y", "FP32", (-1, 2), labels=("no", "yes"))


def version(inputs=(X, NOTE), outputs=(Y,), **fields) -> VersionManifest:
    return make_manifest(signature=Signature(tuple(inputs), tuple(outputs)), **fields)


def spec(of: TensorSpec, **fields) -> TensorSpec:
    return msgspec.structs.replace(of, **fields)


def code(path: str, letter: str) -> FileEntry:
    return FileEntry(path, letter * 64, 1)


MAJOR, MINOR = Level.MAJOR, Level.MINOR
CASES = {
    "an input gone": (version([X]), MAJOR, "input 'note' is gone"),
    "a required input": (version([X, NOTE, TensorSpec("z", "INT8", (-1,))]), MAJOR, "input 'z' is new and required"),
    "an optional input": (version([X, NOTE, spec(NOTE, name="z")]), MINOR, "input 'z' is new and optional"),
    "an input of another type": (version([spec(X, datatype="FP64"), NOTE]), MAJOR, "input 'x' is FP64, it was FP32"),
    "an input of another width": (
        version([spec(X, shape=(-1, 5)), NOTE]),
        MAJOR,
        "input 'x' has shape [-1, 5], it had [-1, 4]",
    ),
    "an input of another rank": (
        version([spec(X, shape=(-1,)), NOTE]),
        MAJOR,
        "input 'x' has shape [-1], it had [-1, 4]",
    ),
    "an input of one row": (
        version([spec(X, shape=(1, 4)), NOTE]),
        MAJOR,
        "input 'x' has shape [1, 4], it had [-1, 4]",
    ),
    "an input of any width": (
        version([spec(X, shape=(-1, -1)), NOTE]),
        MINOR,
        "input 'x' takes shape [-1, -1], it took [-1, 4]",
    ),
    "an input required": (version([X, spec(NOTE, optional=False)]), MAJOR, "input 'note' is required, it was optional"),
    "an input optional": (version([spec(X, optional=True), NOTE]), MINOR, "input 'x' is optional, it was required"),
    "an output gone": (version(outputs=[spec(Y, name="z")]), MAJOR, "output 'y' is gone"),
    "an output more": (version(outputs=[Y, spec(Y, name="z")]), MINOR, "output 'z' is new"),
    "an output of another type": (
        version(outputs=[spec(Y, datatype="FP16")]),
        MAJOR,
        "output 'y' is FP16, it was FP32",
    ),
    "an output of any width": (
        version(outputs=[spec(Y, shape=(-1, -1))]),
        MAJOR,
        "output 'y' has shape [-1, -1], it had [-1, 2]",
    ),
    "an output of one row": (
        version(outputs=[spec(Y, shape=(1, 2))]),
        MINOR,
        "output 'y' is always of shape [1, 2], it had [-1, 2]",
    ),
    "labels turned round": (version(outputs=[spec(Y, labels=("yes", "no"))]), MAJOR, "output 'y' has other labels"),
    "labels taken away": (version(outputs=[spec(Y, labels=())]), MAJOR, "output 'y' has other labels"),
    "more labels": (
        version(outputs=[spec(Y, labels=("no", "yes", "perhaps"))]),
        MINOR,
        "output 'y' has more labels than before",
    ),
    "another kind": (version(kind="embed"), MAJOR, "it is of kind embed, it was predict"),
    "streams": (version(streams=True), MINOR, "it streams"),
    "effects": (version(idempotent=False), MAJOR, "asking it twice is no longer the same as once"),
    "another format": (version(format="sklearn"), MINOR, "its format is sklearn, it was onnx"),
    "pre-processing": (version(preprocess="text:tokenize"), MINOR, "pre-processing text:tokenize is new"),
}


@pytest.mark.parametrize(("after", "level", "says"), CASES.values(), ids=CASES.keys())
def test_a_change_has_its_level_and_its_words(after: VersionManifest, level: Level, says: str) -> None:
    found = changes(version(), after)
    assert Change(level, says) in found
    assert level_of(found) is level


@pytest.mark.parametrize("after", [case[0] for case in CASES.values()], ids=CASES.keys())
def test_what_a_client_loses_one_way_it_gains_the_other_way_or_loses_as_well(after: VersionManifest) -> None:
    there, back = changes(version(), after), changes(after, version())
    assert there
    assert back
    assert changes(after, after) == ()


def test_weights_profiles_and_remarks_are_no_change() -> None:
    after = version(files=(FileEntry("model.onnx", "b" * 64, 9),), metadata={"by": "me"}, warm_up=True, version="9.0.0")
    assert changes(version(), after) == ()
    assert level_of(()) is Level.PATCH


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (("b", "a", "c", "d"), ("input 'x' has its columns in another order",)),
        (("a", "b", "c", "e"), ("input 'x' has other columns",)),
        (("a", "b", "c", "d"), ()),
        ((), ()),
    ],
)
def test_columns_of_an_input_are_told_apart_by_name_where_both_have_names(labels, says) -> None:
    before = version([spec(X, labels=("a", "b", "c", "d"))])
    found = changes(before, version([spec(X, labels=labels)]))
    assert tuple(change.what for change in found) == says
    assert all(change.level is MAJOR for change in found)


def test_code_is_compared_file_by_file() -> None:
    before = version(preprocess="a:f", files=(code("a.py", "1"), code("b.py", "2"), code("model.onnx", "3")))
    after = version(postprocess="c:g", files=(code("a.py", "9"), code("c.py", "2"), code("model.onnx", "4")))
    assert [change.what for change in changes(before, after)] == [
        "pre-processing a:f is gone",
        "post-processing c:g is new",
        "the code a.py is another",
        "the code b.py is gone",
        "the code c.py is new",
    ]
    moved = changes(version(preprocess="a:f"), version(preprocess="b:f"))
    assert moved == (Change(Level.MINOR, "pre-processing is b:f, it was a:f"),)


def test_the_largest_change_comes_first() -> None:
    found = changes(version(), version([X, spec(NOTE, name="z")], [Y, spec(Y, name="more")]))
    assert [change.level for change in found] == sorted((change.level for change in found), reverse=True)
    assert found[0] == Change(Level.MAJOR, "input 'note' is gone")
