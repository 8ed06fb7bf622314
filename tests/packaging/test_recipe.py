from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import os
import re
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import salver
from salver.packaging import Recipe, pinned_requirements, write_recipe
from salver.protocol.errors import SalverError
from salver.protocol.tables import Tables, TokenRecord
from salver.storage.home import Home
from salver.storage.publication import publish

BLOB = b"the bytes of a model" * 100


def fill(directory: Path) -> None:
    (directory / "salver-home.json").write_bytes(b'{"layout":1}')
    (directory / "tables.json").write_bytes(b'{"revision":1}')
    (directory / "blobs").mkdir(mode=0o700)
    (directory / "blobs" / "ab").write_bytes(BLOB)


def write(destination: Path, **changes) -> Recipe:
    given = {"endpoint": "digits", "reference": "digits@1.0.0", "fill_home": fill}
    return write_recipe(destination, **(given | changes))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    destination = tmp_path_factory.mktemp("recipe") / "out"
    write(destination, extras=["sklearn"])
    return destination


def test_the_directory_holds_what_the_build_needs_and_nothing_else(recipe):
    wheel = f"salver-{importlib.metadata.version('salver')}-py3-none-any.whl"
    assert {path.name for path in recipe.iterdir()} == {
        ".dockerignore",
        "Dockerfile",
        "README.md",
        "health.py",
        "home",
        "requirements.txt",
        wheel,
    }
    assert (recipe / "home/blobs/ab").read_bytes() == BLOB
    assert recipe.stat().st_mode & 0o777 == 0o755


def test_hadolint_finds_nothing(recipe):
    linter = Path(sys.executable).parent / "hadolint"
    found = subprocess.run(
        [linter, "--no-color", "Dockerfile"], cwd=recipe, capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_hadolint_would_find_something(recipe, tmp_path):
    spoiled = (recipe / "Dockerfile").read_text().replace('CMD ["serve"', "CMD serve #")
    (tmp_path / "Dockerfile").write_text(spoiled)
    linter = Path(sys.executable).parent / "hadolint"
    found = subprocess.run([linter, tmp_path / "Dockerfile"], capture_output=True, text=True, check=False)
    assert found.returncode != 0
    assert "DL3025" in found.stdout


def instructions(recipe: Path, name: str) -> list[str]:
    text = re.sub(r"\\\n\s*", "", (recipe / "Dockerfile").read_text())
    return [line.partition(" ")[2] for line in text.splitlines() if line.startswith(f"{name} ")]


def test_one_unprivileged_process_runs_without_a_shell(recipe):
    assert instructions(recipe, "ENTRYPOINT") == ['["salver"]']
    (command,) = instructions(recipe, "CMD")
    assert command.startswith('["serve", "--host", "0.0.0.0"')
    assert '"--tls-cert", "/run/secrets/tls.crt", "--tls-key", "/run/secrets/tls.key"' in command
    assert '"--require-token"' in command
    assert "--insecure" not in (recipe / "Dockerfile").read_text()
    assert instructions(recipe, "USER") == ["10001:10001"]
    assert instructions(recipe, "EXPOSE") == ["8080"]
    (health,) = instructions(recipe, "HEALTHCHECK")
    assert 'CMD ["python", "/opt/salver/health.py"]' in health


def test_a_managed_image_starts_as_platforms_want_it_and_says_what_that_means(tmp_path):
    write(tmp_path / "out", managed=True)
    made = tmp_path / "out"
    assert instructions(made, "ENTRYPOINT") == ['["salver", "container"]']
    assert instructions(made, "CMD") == ['["serve"]']
    assert any('capabilities.multi-models="true"' in label for label in instructions(made, "LABEL"))
    text = (made / "README.md").read_text()
    assert "without TLS and asks for no token" in text
    assert not re.search(r"@[A-Z_]+@", text + (made / "Dockerfile").read_text())
    linter = Path(sys.executable).parent / "hadolint"
    found = subprocess.run([linter, "--no-color", "Dockerfile"], cwd=made, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_the_base_is_exact_and_nothing_can_be_compiled(recipe):
    bases = instructions(recipe, "FROM")
    assert all(re.fullmatch(r"python:3\.\d+\.\d+-slim(-\w+)?( AS build)?", base) for base in bases)
    assert "--only-binary :all:" in (recipe / "Dockerfile").read_text()
    assert "apt" not in (recipe / "Dockerfile").read_text()


def test_every_copied_file_is_let_through_and_nothing_else(recipe):
    ignored = (recipe / ".dockerignore").read_text().split("\n")
    assert ignored[1] == "*"
    let_through = {line[1:] for line in ignored if line.startswith("!")}
    copied = set()
    for line in instructions(recipe, "COPY"):
        sources = [word for word in line.split() if not word.startswith("--")][:-1]
        if "--from=build" not in line:
            copied |= {source.rstrip("/") for source in sources}
    assert let_through == copied
    assert all((recipe / name).exists() for name in copied)


# The pins.


def closure(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> None:
    """What is needed, written another way than the code: recursion over metadata."""
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    for line in importlib.metadata.requires(name) or ():
        requirement = Requirement(line)
        wanted = requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in extras | {""}
        )
        if wanted:
            closure(canonicalize_name(requirement.name), frozenset(requirement.extras), seen)


@pytest.mark.parametrize("extras", [(), ("sklearn",), ("sklearn", "parquet")])
def test_the_pins_are_the_whole_closure_at_the_versions_installed(extras):
    seen: set[tuple[str, frozenset[str]]] = set()
    closure("salver", frozenset(extras), seen)
    expected = {name: importlib.metadata.version(name) for name, _ in seen if name != "salver"}
    assert dict(line.split("==") for line in pinned_requirements(extras)) == expected


def test_the_pins_bring_what_the_format_needs_and_no_tools(recipe):
    names = {line.split("==")[0] for line in (recipe / "requirements.txt").read_text().splitlines()}
    assert {"numpy", "onnxruntime", "uvloop", "scikit-learn", "skops", "scipy"} <= names
    assert not {"pytest", "ruff", "mypy", "skl2onnx", "pyarrow", "salver"} & names
    assert "skops" not in {line.split("==")[0] for line in pinned_requirements()}


def test_more_packages_can_be_asked_for_with_all_they_need():
    names = {line.split("==")[0] for line in pinned_requirements(also=["hypothesis"])}
    assert {"hypothesis", "sortedcontainers"} <= names


@pytest.mark.parametrize("name", ["no-such-package-here", "a b", ""])
def test_what_is_not_installed_cannot_be_pinned(name):
    with pytest.raises(SalverError) as caught:
        pinned_requirements(also=[name])
    assert caught.value.code == "INVALID_SETTING"


# What must not get in.


def test_no_secret_and_no_path_of_this_machine_gets_in(recipe):
    private = [str(Path.home()), str(Path(salver.__file__).parents[2]), str(recipe.parent), sys.prefix]
    names, contents = [], []
    for path in recipe.rglob("*"):
        names.append(path.name)
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                names += wheel.namelist()
                contents += [wheel.read(name) for name in wheel.namelist()]
        elif path.is_file():
            contents.append(path.read_bytes())
    assert not {"admin.token", "pepper", "secrets"} & set(names)
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    for content in contents:
        for path in private:
            assert path.encode() not in content


def add(name: str, content: bytes = b"x"):
    def fill_more(directory: Path) -> None:
        fill(directory)
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(content)

    return fill_more


def link(directory: Path) -> None:
    fill(directory)
    (directory / "link").symlink_to("/etc/passwd")


def whole_home(directory: Path) -> None:
    Home.open(directory)


def with_tokens(directory: Path) -> None:
    (directory / "salver-home.json").write_bytes(b'{"layout":1}')
    publish(Home(directory), Tables(1, tokens=(TokenRecord("a", "a", "admin", "t", "00"),)))


@pytest.mark.parametrize(
    "filler",
    [
        add("admin.token"),
        add("secrets/pepper"),
        add("x/pepper"),
        add("lock"),
        add("serve.json"),
        link,
        with_tokens,
        whole_home,
    ],
)
def test_a_home_with_secrets_or_leftovers_is_refused_and_leaves_nothing(tmp_path, filler):
    with pytest.raises(SalverError) as caught:
        write(tmp_path / "out", fill_home=filler)
    assert caught.value.code == "REFUSED_BY_POLICY"
    assert list(tmp_path.iterdir()) == []


def test_a_filler_that_fails_leaves_nothing(tmp_path):
    def fail(_: Path) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "deep" / "out", fill_home=fail)
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_directory_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(SalverError) as caught:
        write(tmp_path)
    assert caught.value.code == "ALREADY_EXISTS"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_empty_directory_will_do(tmp_path):
    (tmp_path / "out").mkdir()
    assert write(tmp_path / "out").size_bytes > len(BLOB)


@pytest.mark.parametrize(
    "image",
    [
        "python",
        "python:latest",
        "python:3",
        "python:{}.{}-slim",
        "python:2.7.18-slim",
        "UPPER:1.0",
        "a b:1",
        "x:1\nRUN y",
    ],
)
def test_a_base_image_that_is_not_pinned_is_refused(tmp_path, image):
    with pytest.raises(SalverError) as caught:
        write(tmp_path / "out", base_image=image.format(*sys.version_info[:2]))
    assert caught.value.code == "INVALID_SETTING"


@pytest.mark.parametrize(
    "image", ["registry.example.org:5000/team/python:{}.{}.1-slim", "own/base:2024.1", "own/base@sha256:" + "0" * 64]
)
def test_another_exact_base_image_is_used(tmp_path, image):
    image = image.format(*sys.version_info[:2])
    write(tmp_path / "out", base_image=image)
    assert instructions(tmp_path / "out", "FROM") == [f"{image} AS build", image]


def test_the_readme_has_the_two_commands_and_says_what_insecure_means(recipe):
    text = (recipe / "README.md").read_text()
    assert "docker build --tag salver-digits:1.0.0 ." in text
    assert "docker run --detach --name salver-digits-1.0.0 " in text
    assert "--insecure` means" in text
    for name in ("Dockerfile", "README.md", ".dockerignore"):
        assert not re.search(r"@[A-Z_]+@", (recipe / name).read_text())


# The wheel.


def test_the_wheel_holds_every_source_file_and_a_true_record(recipe):
    (path,) = recipe.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        assert wheel.testzip() is None
        names = set(wheel.namelist())
        (record,) = [name for name in names if name.endswith("RECORD")]
        for name, digest, size in csv.reader(wheel.read(record).decode().splitlines()):
            if name == record:
                continue
            content = wheel.read(name)
            computed = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            assert (digest, size) == (f"sha256={computed}", str(len(content)))
    root = Path(salver.__file__).parent
    sources = {f"salver/{file.relative_to(root).as_posix()}" for file in root.rglob("*.py")}
    assert sources <= names
    assert "salver/py.typed" in names
    assert "salver/packaging/image/Dockerfile" in names


def test_the_same_installation_gives_the_same_bytes(recipe, tmp_path):
    write(tmp_path / "again", extras=["sklearn"])
    for path in tmp_path.glob("again/*.*"):
        assert path.read_bytes() == (recipe / path.name).read_bytes()


def test_the_wheel_installs_and_runs(recipe, tmp_path):
    (wheel,) = recipe.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", tmp_path / "site"]
    subprocess.run([*pip, wheel], check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    program = "import salver, salver.client, salver.packaging; print(salver.__file__)"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(ran.stdout.strip()).is_relative_to(tmp_path)
    assert (tmp_path / "site/bin/salver").exists()


# The health check, against sockets of its own.


def health(recipe: Path, port: int) -> int:
    return subprocess.run([sys.executable, recipe / "health.py", str(port)], check=False).returncode


@pytest.mark.parametrize(("status", "expected"), [("200 OK", 0), ("503 Service Unavailable", 1)])
def test_the_health_check_tells_ready_from_not_ready(recipe, status, expected):
    program = (
        "import http.server, sys\n"
        "class Page(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        f"        self.send_response({status[:3]} if self.path == '/v2/health/ready' else 404)\n"
        "        self.end_headers()\n"
        "    def log_message(self, *_): pass\n"
        "server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Page)\n"
        "print(server.server_port, flush=True)\n"
        "server.serve_forever()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            assert health(recipe, int(server.stdout.readline())) == expected
        finally:
            server.kill()


def test_the_health_check_fails_when_nobody_listens(recipe):
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    assert health(recipe, port) == 1
