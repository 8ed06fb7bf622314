"""A promotion that dies at any step has happened or has not; two processes that promote at once agree who did."""

from __future__ import annotations

import json

from tests.registry.promoting import Promoting, person

from salver.protocol.stages import Stage
from salver.registry.records import Records
from salver.storage.database import open_database
from salver.storage.home import Home
from salver.testing import ManualClock

POLICY = """
[[model]]
on_replaced = "archived"
[[transition]]
to = "production"
[[transition.gate]]
kind = "approvals"
"""

KILLED = """
import os, signal, sys
from sqlalchemy import Engine, event
from salver.clock import SYSTEM_CLOCK
from salver.protocol.stages import Stage
from salver.registry.lifecycle import PromotionRequest
from salver.registry.records import Records
from salver.security.access import Principal, PrincipalKind, Role
from salver.storage.database import open_database
from salver.storage.home import Home

ann = Principal("ann", Role.OPERATOR, "default", PrincipalKind.TOKEN)

def promote(home, version, fatal):
    left = [fatal]
    def step(*_):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    database = open_database(Home.open(home))
    records = Records(Home.open(home), database, SYSTEM_CLOCK)
    # Reading changes nothing, so dying between two reads is dying before the next write.
    event.listen(
        Engine, "before_cursor_execute", lambda c, cursor, text, *_: None if text.startswith("SELECT") else step()
    )
    event.listen(Engine, "commit", step)
    records.lifecycle.promote(ann, PromotionRequest("digits", version, Stage.PRODUCTION))
    database.close()

for line in sys.stdin:
    home, version, fatal = line.split()
    pid = os.fork()
    if pid == 0:
        promote(home, version, int(fatal))
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    print("killed" if os.WIFSIGNALED(status) else "done" if status == 0 else "failed", flush=True)
"""

RACE = """
import json, sys
from salver.clock import SYSTEM_CLOCK
from salver.protocol.errors import SalverError
from salver.protocol.stages import Stage
from salver.registry.lifecycle import PromotionRequest
from salver.registry.records import Records
from salver.security.access import Principal, PrincipalKind, Role
from salver.storage.database import open_database
from salver.storage.home import Home

home = Home.open(sys.argv[1])
database = open_database(home)
records = Records(home, database, SYSTEM_CLOCK)
ann = Principal("ann", Role.OPERATOR, "default", PrincipalKind.TOKEN)
print("ready", flush=True)
for line in sys.stdin:
    version, target = line.split()
    try:
        done = records.lifecycle.promote(
            ann, PromotionRequest("digits", version, Stage(target), if_stage=Stage.VALIDATION)
        )
        print(json.dumps("moved" if done.moved else "already"), flush=True)
    except SalverError as error:
        print(json.dumps(error.code), flush=True)
"""


def test_a_promotion_killed_at_any_step_has_happened_or_has_not(home, database, draft, python) -> None:
    house = Promoting(home, database)
    house.policy(POLICY)
    present = house.register(draft("a"))
    house.bring(present, "validation", "staging")
    house.records.approvals.approve(person("bea", "approver"), "digits", present, Stage.PRODUCTION)
    house.bring(present, "production")
    child = python(KILLED)
    comer = house.register(draft("b"))
    house.bring(comer, "validation", "staging")
    house.records.approvals.approve(person("bea", "approver"), "digits", comer, Stage.PRODUCTION)
    before = house.actions()
    database.close()  # it does not go across the fork
    outcomes = []
    for fatal in range(1, 200):
        child.stdin.write(f"{home.path} {comer} {fatal}\n")
        child.stdin.flush()
        outcomes.append(child.stdout.readline().strip())
        again = open_database(Home.open(home.path))
        records = Records(home, again, ManualClock())
        stages = {each.version: each.stage.value for each in records.lifecycle.stages("digits")}
        actions = [record.action for record in records.journal.records(1000)]
        approvals = records.approvals.of("digits", comer)
        decisions = records.lifecycle.decisions("digits", comer)
        assert records.journal.verify().ok
        again.close()
        if stages[comer] == "staging":
            assert stages[present] == "production"
            assert actions == before
            assert len(approvals) == 1
            assert len(decisions) == 2
        else:
            assert stages == {present: "archived", comer: "production"}
            assert actions == [*before, "replace", "promote"]
            assert approvals == ()
            assert len(decisions) == 3
            break
    assert len(outcomes) > 10
    assert set(outcomes[:-1]) == {"killed"}


def test_of_two_processes_that_promote_at_once_one_wins_and_the_other_is_told(home, database, draft, python) -> None:
    house = Promoting(home, database)
    children = [python(RACE, home.path) for _ in range(2)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for content in "abcdef":
        version = house.register(draft(content))
        house.bring(version, "validation")
        targets = ("staging", "rejected")
        for child, target in zip(children, targets, strict=True):
            child.stdin.write(f"{version} {target}\n")
            child.stdin.flush()
        told = dict(zip(targets, (json.loads(child.stdout.readline()) for child in children), strict=True))
        winner = house.stages()[version]
        assert told.pop(winner) == "moved"
        assert list(told.values()) == ["CONFLICT"]
        assert len(house.lifecycle.decisions("digits", version)) == 2
    assert house.records.journal.verify().ok
