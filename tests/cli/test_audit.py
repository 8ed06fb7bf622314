from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from salver.cli.times import moment
from salver.protocol.errors import SalverError
from salver.storage.verification import UNSIGNED

MODEL = """
import salver

class Echo(salver.Model):
    inputs = (salver.TensorSpec("x", "FP32", (-1, 2)),)
    outputs = (salver.TensorSpec("y", "FP32", (-1, 2)),)

    def predict(self, inputs):
        return {"y": inputs["x"]}
"""


@pytest.fixture
def history(salver: Callable, tmp_path: Path, home: Path) -> Path:
    """A home in which ann's tokens come and one goes: five records with the administrator's."""
    salver("token", "create", "ann", "--role", "developer")
    made = salver("--json", "token", "create", "bob", "--role", "operator", "--why", "für die Nacht").json
    salver("token", "create", "eve", "--role", "predictor", "--why=trial")
    salver("token", "revoke", made["record"]["id"], "--why", "left the house")
    return home


def seqs(done) -> list[int]:
    return [record["seq"] for record in done.json]


def test_records_say_why_and_on_which_command(salver: Callable, history: Path) -> None:
    records = salver("--json", "audit").json
    assert [record.get("why") for record in records] == [None, None, "für die Nacht", "trial", "left the house"]
    assert len({record["request_id"] for record in records}) == 4, "the first command made the home, too"
    assert records[2]["after"] == records[4]["before"]
    assert "before" not in records[2]
    assert salver("audit").out.splitlines()[-1].endswith("left the house")


def test_records_are_listed_by_what_they_say(salver: Callable, history: Path) -> None:
    assert seqs(salver("--json", "audit", "--action", "revoke_token")) == [5]
    assert seqs(salver("--json", "audit", "--last", "--limit", 2)) == [5, 4]
    assert "note: these are the first 2; there may be more" in salver("audit", "--limit", 2).err
    assert salver("audit").err == ""
    assert seqs(salver("--json", "audit", "--after", 3)) == [4, 5]
    assert seqs(salver("--json", "audit", "--since", "1 hour ago", "--limit", 1)) == [1]
    assert seqs(salver("--json", "audit", "--until", "2020-01-01")) == []
    assert seqs(salver("--json", "audit", "--actor", "nobody")) == []
    assert salver("audit", "--actor", "nobody").out == "no records\n"
    lines = salver("audit", "--lines", "--action", "create_token").out.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [1, 2, 3, 4]


def test_more_records_than_a_page_are_listed_in_both_directions(
    salver: Callable, history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("salver.storage.journal.MOST_RECORDS", 2)
    assert seqs(salver("--json", "audit")) == [1, 2, 3, 4, 5]
    assert seqs(salver("--json", "audit", "--last", "--limit", 3)) == [5, 4, 3]


def test_a_whole_journal_is_told_as_such(salver: Callable, history: Path) -> None:
    done = salver("audit", "verify", "--json")
    assert done.json == {"ok": True, "records": 5, "heads": 0, "bad_seq": None, "reason": UNSIGNED}
    assert done.code == 2, "nothing but the chain itself tells"
    assert "`salver audit head` signs one" in salver("audit", "verify").err
    head = salver("audit", "head", "--json").json
    assert head["size"] == 5
    done = salver("audit", "verify")
    assert (done.code, done.out) == (0, "5 records, chain is whole; signed tree heads compared: 1\n")
    assert head["root"] in salver("audit", "head").out


def tamper(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_an_edit_ends_with_code_1_and_names_the_record(salver: Callable, history: Path) -> None:
    tamper(history / "salver.db", "UPDATE journal SET actor = 'nobody' WHERE seq = 3")
    done = salver("audit", "verify", "--json")
    assert (done.code, done.json["ok"], done.json["records"], done.json["bad_seq"]) == (1, False, 2, 3)
    done = salver("audit", "verify")
    assert (done.code, done.out) == (1, "record 3: the record was edited: its columns say something else than it\n")
    assert "record 3" in salver("doctor").out


def head_of(path: Path) -> tuple[str, str]:
    """The last hash and the peaks of what is in the journal now."""
    from salver.storage.merkle import Peaks, leaf_hash

    connection, peaks, last_hash = sqlite3.connect(path), Peaks(), ""
    for record, last_hash in connection.execute("SELECT record, hash FROM journal ORDER BY seq"):  # noqa: B007
        peaks.add(leaf_hash(record.encode()))
    connection.close()
    return last_hash, peaks.text


def test_heads_kept_elsewhere_know_of_records_that_are_gone(salver: Callable, history: Path, tmp_path: Path) -> None:
    kept, copy = tmp_path / "kept.json", tmp_path / "copy"
    kept.write_text(salver("audit", "head", "--json").out)
    shutil.copytree(history, copy)
    (copy / "audit" / "heads.jsonl").unlink()
    assert salver("audit", "verify", "--heads", kept).code == 0
    assert salver("--home", copy, "audit", "verify", "--heads", kept).code == 0
    other = tmp_path / "other"
    salver("--home", other, "token", "create", "ann", "--role", "developer")
    done = salver("--home", other, "audit", "verify", "--heads", kept)
    assert done.code == 1
    assert "the journal ends at 2; a tree head that is signed with key" in done.out
    # Whoever writes the whole chain anew, with all that is beside it, is found only by what was kept.
    tamper(copy / "salver.db", "DELETE FROM journal WHERE seq = 5", "DELETE FROM tree_heads")
    hash_of_4, peaks = head_of(copy / "salver.db")
    tamper(copy / "salver.db", f"UPDATE journal_head SET seq = 4, hash = '{hash_of_4}', peaks = '{peaks}'")
    assert salver("--home", copy, "audit", "verify").code == 1, "the copies in the home know of record 5"
    (copy / "audit" / "heads.jsonl").unlink()
    assert salver("--home", copy, "audit", "verify").code == 2
    done = salver("--home", copy, "audit", "verify", "--heads", kept, "--json")
    assert (done.code, done.json["bad_seq"]) == (1, 5)
    assert done.json["reason"] == "the journal ends at 4; a signed tree head says 5"


def test_who_writes_the_home_and_exchanges_its_key_is_found_by_one_that_is_pinned(
    salver: Callable, history: Path, tmp_path: Path
) -> None:
    salver("audit", "head")
    pinned, eve = tmp_path / "pinned.pub", tmp_path / "eve.pub"
    pinned.write_text(salver("keys", "show", "--audit", "--pem").out)
    assert salver("audit", "verify", "--public-key", pinned).code == 0
    assert salver("audit", "rotate").out.startswith("signs the journal now")
    assert salver("audit", "verify", "--public-key", pinned).code == 0
    assert salver("audit", "verify").code == 0
    # Eve puts a key of hers in the place of the home's, and beside the heads, and signs.
    other = tmp_path / "other"
    eve.write_text(salver("--home", other, "keys", "show", "--audit", "--pem").out)
    shutil.copy(eve, history / "audit" / "eve.pub")
    assert salver("audit", "verify").code == 0, "nothing is signed with it"
    shutil.copy(other / "secrets" / "audit.key", history / "secrets" / "audit.key")
    salver("token", "create", "mallory", "--role", "admin")
    salver("audit", "head")
    for options in ((), ("--public-key", pinned), ("--public-key", eve)):
        done = salver("audit", "verify", *options)
        assert (done.code, "is not known here and which no known key is linked to" in done.out) == (1, True)
    assert salver("audit", "verify", "--public-key", pinned, "--public-key", eve).code == 0


def test_a_copy_of_the_database_is_checked_where_it_lies(salver: Callable, history: Path, tmp_path: Path) -> None:
    salver("audit", "head")
    folder = tmp_path / "backup"
    folder.mkdir()
    copy = Path(shutil.copy(history / "salver.db", folder))
    folder.chmod(0o500)
    try:
        assert salver("audit", "verify", "--database", copy, "--json").json["records"] == 5
        assert [path.name for path in folder.iterdir()] == ["salver.db"]
    finally:
        folder.chmod(0o700)
    (key,) = (history / "audit").glob("*.pub")
    done = salver("--home", tmp_path / "none", "audit", "verify", "--database", copy, "--public-key", key, "--json")
    assert (done.code, done.json["heads"]) == (0, 1)
    tamper(copy, "UPDATE journal SET subject = 'x' WHERE seq = 2")
    assert salver("audit", "verify", "--database", copy, "--json").json["bad_seq"] == 2
    assert salver("audit", "verify", "--database", tmp_path / "none", "--json").error["code"] == "NOT_FOUND"
    other = tmp_path / "text.db"
    other.write_text("no database")
    assert salver("audit", "verify", "--database", other, "--json").error["code"] == "CORRUPT_ARTIFACT"


def test_a_proof_is_checked_without_the_home(salver: Callable, history: Path, tmp_path: Path) -> None:
    proof = tmp_path / "proof.json"
    proof.write_text(salver("audit", "prove", 3).out)
    (key,) = (history / "audit").glob("*.pub")
    done = salver("--home", tmp_path / "none", "audit", "verify", "--proof", proof, "--public-key", key, "--json")
    assert (done.code, done.json) == (0, {"ok": True, "seq": 3, "size": 5, "reason": ""})
    assert "für die Nacht" in salver("audit", "verify", "--proof", proof).out
    proof.write_text(proof.read_text().replace("Nacht", "Katz"))
    done = salver("audit", "verify", "--proof", proof)
    assert (done.code, done.out) == (1, "the record is not in this tree\n")
    proof.write_text("{}")
    assert salver("audit", "verify", "--proof", proof, "--json").error["code"] == "INVALID_ARTIFACT"
    assert salver("audit", "prove", 9, "--json").error["code"] == "NOT_FOUND"


def test_a_command_with_a_why_of_its_own_keeps_it(salver: Callable, home: Path, tmp_path: Path) -> None:
    model = tmp_path / "echo.py"
    model.write_text(MODEL)
    salver("register", "echo", model, "--trust-code")
    assert salver("registry", "compat", "echo", "--differences").code == 0
    assert salver("--why", "said in front", "deploy", "echo").code == 0
    assert salver("--json", "audit", "--last", "--limit", 1).json[0]["why"] == "said in front"


def test_a_reason_that_cannot_be_recorded_is_refused_before_anything_happens(salver: Callable, history: Path) -> None:
    done = salver("token", "create", "dan", "--role", "developer", "--why", "x" * 1001, "--json")
    assert (done.code, done.error["code"]) == (1, "INVALID_PARAMETER")
    assert len(salver("token", "list", "--json").json) == 3


def test_history_says_what_served_then_and_who_saw_to_it(salver: Callable, home: Path, tmp_path: Path) -> None:
    model = tmp_path / "echo.py"
    model.write_text(MODEL)
    assert salver("register", "echo", model, "--trust-code").code == 0
    salver("deploy", "echo", "--why", "first release")
    salver("deploy", "echo", "--max-batch", 8)
    salver("undeploy", "echo")
    found = salver("history", "echo", "--json").json
    assert [event["action"] for event in found["events"]] == ["register", "deploy", "deploy", "undeploy"]
    assert found["events"][2]["changes"] == {"max_batch": [None, 8]}
    first, second = found["served"]
    assert (first["why"], first["ended"], second["settings"]) == ("first release", "deploy", {"max_batch": 8})
    then = salver("history", "echo", "--at", first["since_s"]).out
    assert then.startswith("echo: echo@1.0.0, generation")
    assert "why       first release" in then
    assert "echo -> echo@1.0.0 (max_batch default -> 8)" in salver("history", "echo").out
    assert salver("history", "echo", "--at", "2020-03-03").out == "echo: nothing served then\n"
    assert salver("history", "other", "--json").error["code"] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("text", "since_s", "until_s"),
    [
        ("2026-03-03", 1772496000.0, 1772582400.0),
        ("2026-03-03T00:00:00Z", 1772496000.0, 1772496000.0),
        ("2026-03-03 02:00:00+02:00", 1772496000.0, 1772496000.0),
        ("1772496000", 1772496000.0, 1772496000.0),
        ("1772496000.5", 1772496000.5, 1772496000.5),
        ("90 seconds ago", 910.0, 910.0),
        ("1 minute ago", 940.0, 940.0),
        ("now", 1000.0, 1000.0),
    ],
)
def test_moments_are_understood(text: str, since_s: float, until_s: float) -> None:
    assert moment(text, 1000.0) == (since_s, until_s)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-03", "2026-03-03T10:00", "-5", "1e400", "3 years ago", "²"])
def test_moments_that_say_too_little_are_refused(text: str) -> None:
    with pytest.raises(SalverError, match="the time"):
        moment(text, 1000.0)
