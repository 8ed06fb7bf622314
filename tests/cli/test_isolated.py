from __future__ import annotations

from salver.storage.home import Home
from salver.storage.isolation import Cause, isolate


def test_what_is_isolated_is_shown_with_its_reason_and_can_be_undone(salver, models, made) -> None:
    assert salver("isolated").out == "nothing is isolated\n"
    assert salver("--json", "isolated").json == []
    digest = salver("--json", "register", "m", models / "times2.onnx").json["digest"]
    salver("deploy", "m")
    isolate(Home.open(made), [digest], Cause.HUNG, 0.0)
    assert salver("--json", "isolated").json == [
        {"digest": digest, "references": ["m@1.0.0"], "cause": "hung", "at_s": 0.0}
    ]
    assert "m@1.0.0  hung" in salver("isolated").out
    told = "m@1.0.0 is isolated: it hung the server process at 1970-01-01 00:00:00; `salver isolated --clear m@1.0.0`"
    assert told in salver("status").out
    assert salver("--json", "status").json["isolated"] == salver("--json", "isolated").json
    assert "m@1.0.0 is no longer isolated" in salver("isolated", "--clear", "m@1.0.0").out
    assert "isolated" not in salver("status").out
    assert salver("--json", "audit").json[-1]["action"] == "end_isolation"
    again = salver("--json", "isolated", "--clear", "m@1.0.0")
    assert (again.code, again.error["code"]) == (1, "NOT_FOUND")


def test_a_damaged_file_does_not_hide_the_rest_of_the_state(salver, made) -> None:
    (made / "isolated.json").write_bytes(b"nonsense")
    assert salver("status").code == 0
    assert salver("--json", "isolated").error["code"] == "CORRUPT_ARTIFACT"
