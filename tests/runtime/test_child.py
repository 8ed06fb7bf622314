"""A child process runs what may be hostile, for as long as it may, and leaves nothing."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil
import pytest
from tests.conftest import until

import salver
from salver.runtime import child as child_module
from salver.runtime.child import Ended, Ending, run_child
from salver.runtime.confinement import can_confine
from salver.runtime.leash import Leash

LONG_S = 60.0
DETACHED = (
    "import os, sys, time\n"
    "for depth in range(2):\n"
    "    if os.fork():\n"
    "        time.sleep({parent})\n"
    "        os._exit(0)\n"
    "    os.setsid()\n"
    "os.close(1); os.close(2)\n"
    "open('{pids}', 'a').write(f'{{os.getpid()}}\\n')\n"
    "time.sleep(100)\n"
)
"""A program whose last child has left its session, and, when `parent` is 0, its parents, too."""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where children get their directories."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return place


def program(code: str, **options) -> Ended:
    return run_child([sys.executable, "-c", code], **{"limit_s": LONG_S} | options)


def said(code: str, **options) -> str:
    done = program(code, answer_bytes=1 << 20, **options)
    assert done.well, done
    return done.output.decode().strip()


def lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_foreign_code_is_started_nowhere_else() -> None:
    source = Path(salver.__file__).parent
    starting = re.compile(
        r"subprocess\.(run|Popen)|create_subprocess|os\.(fork|exec|spawn|posix_spawn|system)|multiproc"
    )
    found = {str(path.relative_to(source)) for path in source.rglob("*.py") if starting.search(path.read_text())}
    serving = {"runtime/worker_process.py", "processes/child.py", "server.py", "cli/checking.py", "cli/develop.py"}
    git = {"control/checkout.py"}
    assert found - serving - git == {"runtime/child.py", "runtime/leash.py", "runtime/confinement.py"}


def test_it_is_told_what_is_sent_and_says_how_it_ended() -> None:
    done = program("import sys; print(sys.stdin.read()[::-1]); sys.exit('no')", sent=b"abc" * 300_000)
    assert (done.ending, done.code, done.how, done.why) == (
        Ending.EXITED,
        1,
        "ended with code 1",
        "ended with code 1: no",
    )
    assert not done.well
    assert len(done.output) == 64 * 1024, "without a bound for an answer, the end of what it says is kept"
    assert program("pass", sent=b"x" * 10_000_000).well, "whoever does not read need not"


@pytest.mark.parametrize(
    ("code", "ending", "number", "how"),
    [
        ("import os; os.kill(os.getpid(), 11)", Ending.KILLED, 11, "was ended by SIGSEGV"),
        ("import os; os.kill(os.getpid(), 35)", Ending.KILLED, 35, "was ended by signal 35"),
        ("import os; os._exit(127)", Ending.EXITED, 127, "ended with code 127"),
        ("import os; os.kill(os.getppid(), 9); input()", Ending.KILLED, 9, "was ended by SIGKILL"),
    ],
)
def test_how_it_ended_is_told(code: str, ending: Ending, number: int, how: str) -> None:
    assert program(code)[:3] == (ending, how, number)


def test_what_does_not_start_is_said(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    (tmp_path / "text").chmod(0o700)
    for command, directory, why in (
        (["/no/such/program"], None, "No such file or directory"),
        ([str(tmp_path / "text")], None, "Exec format error"),
        (["true"], tmp_path / "nowhere", "No such file or directory"),
    ):
        done = run_child(command, limit_s=LONG_S, directory=directory)
        assert (done.ending, done.how) == (Ending.ABSENT, f"does not start: {why}")


def test_it_gets_no_secret_and_no_descriptor_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SALVER_TOKEN", "hush")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    look = "import os; print(os.environ, [f for f in range(3, 200) if os.path.exists(f'/proc/self/fd/{f}')])"
    with (tmp_path / "open").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        seen = said(look, variables={"GIVEN": "yes"})
        assert "hush" not in seen
        assert "'GIVEN': 'yes'" in seen
        assert "[]" in seen
        assert f"[{ours.fileno()}]" in said(look, held=(ours.fileno(),))


def test_it_runs_in_a_directory_of_its_own_that_goes_with_it(temporary: Path, tmp_path: Path) -> None:
    write = "import os, tempfile; open('here', 'w'); tempfile.mkstemp(); os.mkdir('no'); os.chmod('no', 0); "
    where = said(f"{write}print(os.getcwd() == os.environ['TMPDIR'], os.getcwd())").split()
    assert where[0] == "True"
    assert temporary in Path(where[1]).parents
    assert said("import os; print(os.getcwd())", directory=tmp_path) == str(tmp_path)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("parent", ["0", "100"])
def test_what_it_started_ends_with_it_or_with_its_time(tmp_path: Path, temporary: Path, parent: str) -> None:
    pids = tmp_path / "pids"
    code = DETACHED.format(pids=pids, parent=parent)
    if parent == "0":  # it has ended as soon as its child is there
        code = code.replace(
            "os._exit(0)", f"\n        while not os.path.exists('{pids}'): time.sleep(0.01)\n        os._exit(0)"
        )
    done = program(code, limit_s=LONG_S if parent == "0" else 1.5)
    assert done.ending is (Ending.EXITED if parent == "0" else Ending.LATE)
    if parent != "0":
        assert done.how == "was not done within 1.5 s"
    (pid,) = map(int, pids.read_text().split())
    assert not lives(pid)
    assert list(temporary.iterdir()) == []


def test_processes_that_make_others_as_fast_as_they_can_all_end(tmp_path: Path) -> None:
    marks, stop = tmp_path / "marks", tmp_path / "stop"
    endless = (
        "import os, time\nfor number in range(40):\n    if not os.fork():\n        number % 2 and os.setsid()\n"
        f"        while not os.path.exists({str(stop)!r}):\n"
        f"            open({str(marks)!r}, 'a').write(f'{{os.getpid()}} ')\n"
        "            if os.fork(): os._exit(0)\n"
        "            number % 2 and os.setsid()\n"
        "time.sleep(100)\n"
    )
    try:
        program(endless, limit_s=1.0)
        pids = set(marks.read_text().split())
        assert len(pids) > 40
        assert not [pid for pid in pids if lives(int(pid))]
    finally:
        stop.touch()


@pytest.mark.parametrize("stream", [1, 2])
def test_endless_output_is_bounded(stream: int) -> None:
    spam = f"import os\nwhile True: os.write({stream}, b'spam' * 10_000)"
    done = program(spam, answer_bytes=1 << 20, limit_s=1.0 if stream == 2 else LONG_S)
    if stream == 1:
        assert (done.ending, done.how) == (Ending.TOO_LONG, "said more than 1048576 bytes")
        assert len(done.output) < 2 << 20
    else:
        assert (done.ending, len(done.complaint)) == (Ending.LATE, 64 * 1024)


def test_an_answer_of_just_the_length_it_may_have_is_whole() -> None:
    exact = "import os; os.write(1, b'x' * 50_000)"
    assert len(program(exact, answer_bytes=50_000).output) == 50_000
    assert program(exact, answer_bytes=49_999).ending is Ending.TOO_LONG


def test_what_it_prints_is_shown_where_that_is_wanted(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr)"
    program(code)
    assert capfd.readouterr() == ("", "")
    program(code, shown=True)
    assert sorted(capfd.readouterr().err.split()) == ["err", "out"]
    program(code, shown=True, answer_bytes=100)
    assert capfd.readouterr().err.split() == ["err"], "an answer is none of it"


def test_its_memory_is_bounded_and_it_leaves_no_core() -> None:
    greedy = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE)); b = bytearray(1 << 30)"
    done = program(greedy, memory_bytes=512 << 20, answer_bytes=1000)
    assert (done.output.strip(), done.code) == (b"(0, 0)", 1)
    assert "MemoryError" in done.why
    assert program(greedy, memory_bytes=None).well
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    told = "import resource; print(*resource.getrlimit(resource.RLIMIT_DATA))"
    assert said(told).split() == [str(child_module.MEMORY_BYTES)] * 2 if hard == resource.RLIM_INFINITY else True


def test_confined_it_has_no_network_and_writes_only_where_it_runs(tmp_path: Path) -> None:
    code = (
        "import os, socket\n"
        "def tried(what):\n"
        "    try: what()\n"
        "    except OSError as error: return type(error).__name__\n"
        "    return 'done'\n"
        "print(os.environ.get('SALVER_CONFINED'), tried(lambda: open('here', 'w')),\n"
        f"      tried(lambda: open({str(tmp_path / 'there')!r}, 'w')), os.listdir('/sys/class/net') and '',\n"
        "      tried(lambda: socket.create_connection(('192.0.2.1', 9), timeout=5)))"
    )
    if can_confine():
        assert said(code, confined=True).split() == ["network", "files", "done", "OSError", "OSError"]
    assert said("import os; print(os.environ.get('SALVER_CONFINED'))") == "None"


def test_interrupting_who_waits_ends_it(tmp_path: Path, temporary: Path) -> None:
    pids = tmp_path / "pids"

    def interrupt() -> None:
        until(lambda: pids.exists() and pids.read_text(), "it runs")
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        program(DETACHED.format(pids=pids, parent=100))
    thread.join()
    assert not lives(int(pids.read_text()))
    assert list(temporary.iterdir()) == []


def test_killing_who_waits_ends_it_and_all_that_it_started(tmp_path: Path, temporary: Path) -> None:
    pids = tmp_path / "pids"
    command = [sys.executable, "-c", DETACHED.format(pids=pids, parent=100)]
    waits = f"from salver.runtime.child import run_child; run_child({command!r}, limit_s=600)"
    waiting = subprocess.Popen([sys.executable, "-c", waits])
    until(lambda: pids.exists() and pids.read_text(), "it runs")
    waiting.kill()
    waiting.wait()
    until(lambda: not lives(int(pids.read_text())), "the last of it is gone")
    until(lambda: not list(temporary.iterdir()), "its directory is gone")


def test_a_leash_that_starts_when_its_parent_is_dead_already_leaves_nothing(tmp_path: Path) -> None:
    room, ran = tmp_path / "room", tmp_path / "ran"
    room.mkdir()
    somebody_else = os.getppid()
    program = "import sys; from salver.runtime.leash import Leash; Leash.of(sys.argv[1:]).hold()"
    leash = Leash(somebody_else, 2, str(room), 0, 0, ("touch", str(ran)))
    assert subprocess.run([sys.executable, "-c", program, *leash.words()], check=False).returncode == 0
    assert not room.exists()
    assert not ran.exists()
