"""What docs/serve.md and the examples of deployment tell a reader to type."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving import ROOT, Server, draw_photo, encode, serving

from deeplab import LabelSet, Segmenter, cli
from deeplab.files import parse_toml
from documents import blocks

pytest.importorskip("fastapi")

PAGE = ROOT / "docs/serve.md"
DEPLOY = ROOT / "examples/deploy"
LINES = [
    line
    for language, text in blocks(PAGE)
    if language == "sh"
    for line in text.splitlines()
    if line and not line.startswith("pip ")
]
DOCKER = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("docker ")]
PERSON = ("ground", "person", "dog", "tree")


def options_of(line: str) -> list[str]:
    return shlex.split(line)[1:]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the reader's folder."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "photo.jpg").write_bytes(encode(draw_photo(90, 140), "JPEG"))
    (folder / "beach.jpg").write_bytes(encode(draw_photo(60, 60, seed=3), "JPEG"))
    (folder / "labels.txt").write_text("\n".join(PERSON))
    (folder / "tokens").write_text("a-token-of-letters\n")
    return folder


@pytest.fixture(scope="module")
def served(model: Path, home: Path) -> Iterator[Server]:
    options = ("-m", model, "--labels", home / "labels.txt", "--api", "kserve")
    with serving(*options, "--api", "huggingface", "--token", home / "tokens") as running:
        yield running


@pytest.fixture(scope="module")
def open_server(model: Path, home: Path) -> Iterator[Server]:
    options = ("-m", model, "--labels", home / "labels.txt")
    with serving(*options, "--api", "kserve", "--api", "huggingface") as running:
        yield running


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("deeplab ")])
def test_servers_start_as_they_are_told(
    line: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    assert cli.run([*options_of(line), "--port", "99999"]) == 2
    assert "port: got 99999" in capsys.readouterr().err  # the last that is checked before it starts


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_requests_are_answered(open_server: Server, served: Server, home: Path) -> None:
    lines = [line for line in LINES if "curl " in line]
    assert len(lines) == 8
    for line in lines:
        running = served if "Authorization" in line else open_server
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line.replace(":8000", f":{running.port}")],
            cwd=home,
            capture_output=True,
            check=True,
        )
        if wanted := re.search(r" -o (\S+)$", line):
            content = (home / wanted[1]).read_bytes()
            assert content.startswith((b"\x89PNG", b"\xff\xd8", b"PK")), content[:200]
        else:
            found = json.loads(done.stdout)
            assert isinstance(found, list) or found["model"] == "tiny", found
    segmenter = Segmenter(home_model(open_server), labels=LabelSet(PERSON), threads=1)
    mask = np.asarray(Image.open(home / "mask.png"))
    assert (mask == segmenter((home / "photo.jpg").read_bytes()).mask).all()


def home_model(server: Server) -> Path:
    return Path(str(server.process.args[server.process.args.index("-m") + 1]))


def test_python_gets_the_mask(open_server: Server, home: Path) -> None:
    code = next(text for language, text in blocks(PAGE) if "urllib" in text)
    names: dict[str, object] = {}
    exec(code.replace(":8000", f":{open_server.port}"), names)
    photo = (home / "photo.jpg").read_bytes()
    mask = np.asarray(Image.open(io.BytesIO(names["segment"](photo))))
    assert mask.shape == (90, 140)


def test_its_tables_name_what_there_is(open_server: Server) -> None:
    text = PAGE.read_text("utf-8")
    described = open_server.get("/openapi.json").json()["paths"]["/v1/segment"]["post"]
    for parameter in described["parameters"]:
        assert f"| `{parameter['name']}` |" in text
        for value in parameter["schema"].get("enum", []) if parameter["name"] == "output" else []:
            assert f"| `{value}` |" in text
    for status in described["responses"]:
        assert status == "200" or f"| {status} |" in text
    told = subprocess.run(
        [sys.executable, "-c", "from deeplab.cli import main; main()", "serve", "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
        check=True,
    ).stdout
    for option in re.findall(r"`(--[a-z-]+)", text):
        assert option in told or option in ("--to", "--overwrite"), option  # of export


def test_nothing_on_the_page_is_left_to_the_reader_to_try() -> None:
    """Each block is one of those that are run here, by test_readme, or compared below."""
    told = re.findall(r"^```(.*)\n((?:.|\n)*?)^```$", PAGE.read_text("utf-8"), re.M)
    assert {language for language, _ in told} == {"sh", "python", "console", ""}
    (plain,) = [text for language, text in told if not language]
    assert plain.splitlines() == DOCKER
    assert len([text for language, text in told if language == "python"]) == 2
    for line in LINES:
        assert line.startswith(("deeplab ", "openssl ")) or "curl " in line, line
    extras = parse_toml((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for extra in re.findall(r"deeplab\[(\w+)\]", PAGE.read_text("utf-8")):
        assert extra in extras["optional-dependencies"], extra


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_the_tokens_that_openssl_makes_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (make,) = [line for line in LINES if line.startswith("openssl ")]
    subprocess.run(["bash", "-euc", make], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    (serve,) = [line for line in LINES if "--token" in line]
    assert cli.run([*options_of(serve), "--port", "99999"]) == 2
    assert "port: got 99999" in capsys.readouterr().err


def test_the_application_is_given_as_it_says() -> None:
    (code,) = re.findall(r"`(deeplab\.serve\.app\.build_app\(.*\))`", PAGE.read_text("utf-8"))
    import deeplab.serve.app

    application = eval(code, {"deeplab": deeplab, "Segmenter": Segmenter})
    assert callable(application)


@pytest.mark.clients
def test_the_clients_code_of_the_page(
    clients: Path, open_server: Server, home: Path, tmp_path: Path
) -> None:
    python = clients / "tritonclient/bin/python"
    if not python.exists():
        pytest.skip("tritonclient is not installed: make clients")
    code = next(text for language, text in blocks(PAGE) if "tritonclient" in text)
    code = code.replace(":8000", f":{open_server.port}")
    code += "print(mask_of(np.zeros((8, 9, 3), np.uint8), 'tiny').shape)\n"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "(8, 9)", done.stderr


# --- examples/deploy and the Dockerfile -------------------------------------------------------


def test_the_unit_is_one(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    text = (DEPLOY / "deeplab.service").read_text()
    command = re.search("^ExecStart=(.*)$", text, re.M)[1]
    assert command.startswith("/opt/deeplab/bin/deeplab serve ")
    unit = tmp_path / "deeplab.service"
    unit.write_text(text.replace("/opt/deeplab/bin/deeplab", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert cli.run([*shlex.split(command)[1:], "--port", "99999"]) == 2


def test_caddy_takes_its_file() -> None:
    caddy = shutil.which("caddy")
    if caddy is None:
        pytest.skip("needs caddy")
    config = ("--adapter", "caddyfile", "--config", DEPLOY / "Caddyfile")
    done = subprocess.run([caddy, "validate", *config], capture_output=True, text=True, check=False)
    assert "Valid configuration" in done.stdout + done.stderr


def test_nginx_passes_requests_on(model: Path, labels: Path, photo: bytes, tmp_path: Path) -> None:
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    openssl = shutil.which("openssl")
    if nginx is None or openssl is None:
        pytest.skip("needs nginx and openssl")
    make = (
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=segment.example.org",
        "-keyout", "privkey.pem", "-out", "fullchain.pem", "-days", "1",
    )  # fmt: skip
    subprocess.run([openssl, *make], cwd=tmp_path, capture_output=True, check=True)
    options = ("--allowed-host", "segment.example.org", "--root-path", "/seg")
    with serving("-m", model, "--labels", labels, *options) as server:
        port = free_port()
        text = (DEPLOY / "nginx.conf").read_text()
        text = text.replace("/etc/letsencrypt/live/segment.example.org", str(tmp_path))
        text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
        text = text.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
        config = tmp_path / "nginx.conf"
        paths = "".join(
            f"{name}_temp_path {tmp_path / name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config.write_text(
            f"pid {tmp_path}/pid;\nerror_log stderr;\ndaemon off;\nuser root;\nevents {{}}\n"
            f"http {{\naccess_log off;\n{paths}\n{text}\n}}\n"
        )
        check = subprocess.run(
            [nginx, "-t", "-p", tmp_path, "-c", config], capture_output=True, text=True
        )
        assert check.returncode == 0, check.stderr
        running = subprocess.Popen([nginx, "-p", tmp_path, "-c", config], stderr=subprocess.PIPE)
        try:
            answer = ask_tls(port, photo)
            assert answer[0] == 200, answer
            assert np.asarray(Image.open(io.BytesIO(answer[1]))).shape == (90, 140)
        finally:
            running.terminate()
            running.communicate(timeout=30)
        (line,) = server.wait_for_log("POST /v1/segment")
        assert " 127.0.0.1 POST" in line


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def ask_tls(port: int, photo: bytes) -> tuple[int, bytes]:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for _ in range(200):
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=30)
        try:
            connection.request(
                "POST", "/v1/segment?output=mask", photo, {"Host": "segment.example.org"}
            )
            response = connection.getresponse()
            return response.status, response.read()
        except ConnectionRefusedError:
            time.sleep(0.05)
        finally:
            connection.close()
    raise AssertionError("nginx does not listen")


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions and their arguments."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def test_the_image_starts_as_nobody_and_tells_whether_it_is_well(
    model: Path, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = instructions()
    final = found[max(i for i, (name, _) in enumerate(found) if name == "FROM") :]
    said = dict(final)
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", said["USER"])
    assert not [text for name, text in found if name == "ADD"]
    command = json.loads(said["ENTRYPOINT"]) + json.loads(said["CMD"])
    assert command[:2] == ["deeplab", "serve"]
    options = command[2:]
    port = options[options.index("--port") + 1]
    assert port == said["EXPOSE"]
    check = json.loads(said["HEALTHCHECK"].partition("CMD ")[2])
    assert check[0] == "python"
    with serving(*remove(options, "--port"), "-m", model, "--labels", labels) as server:
        code = check[2].replace(f":{port}/", f":{server.port}/")
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
        server.stop()
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert failed.returncode != 0


def test_dockers_lines_fit_the_image() -> None:
    """As text: building needs a daemon and the network, and containers have neither here."""
    instruction = dict(instructions())  # the last of each name: those of the final stage
    environment = dict(re.findall(r"(\w+)=(\S+)", instruction["ENV"]))
    build, start, publish = (shlex.split(line) for line in DOCKER)
    assert build == ["docker", "build", "-t", start[-1], "."]
    assert start[:3] == ["docker", "run", "--rm"]
    assert start[start.index("-p") + 1].split(":")[1] == instruction["EXPOSE"]
    assert start[start.index("--tmpfs") + 1] == environment["DEEPLAB_HOME"]
    assert "--read-only" in start  # nothing else is written: test_container.py
    assert start[start.index("-e") + 1] in (ROOT / "src/deeplab/cli/serve.py").read_text("utf-8")
    assert publish[:3] == ["docker", "buildx", "build"]
    assert "--platform=$BUILDPLATFORM" in (ROOT / "Dockerfile").read_text()
    said = [line.lstrip("# ") for line in (ROOT / "Dockerfile").read_text().splitlines()]
    written = [line for line in said if line.startswith("docker ")]
    assert [written[0], written[2]] == [DOCKER[0], DOCKER[2]]


def remove(options: list[str], name: str) -> list[str]:
    at = options.index(name)
    return options[:at] + options[at + 2 :]


def test_what_the_image_is_built_from_is_there() -> None:
    kept = [
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    for name in kept:
        assert (ROOT / name).exists(), name
    needed = re.findall(r'^"(\S+)" = "deeplab/', (ROOT / "pyproject.toml").read_text(), re.M)
    assert {*needed, "src", "pyproject.toml", "README.md"} <= {*kept}


def test_the_image_has_what_the_page_is_built_from() -> None:
    found = instructions()
    stage = found[: next(i for i, (name, _) in enumerate(found) if name == "FROM" and i)]
    copied = [one for name, text in stage if name == "COPY" for one in text.split()[:-1]]
    read = re.findall(r"'\.\./([^']+)'", (ROOT / "web/vite.config.ts").read_text())
    read.remove("src/deeplab/web")  # where it goes
    assert len(read) >= 3
    for file in read:
        assert any(file == one or file.startswith(f"{one}/") for one in copied), file


@pytest.mark.network
@pytest.mark.integration
def test_the_images_commands_make_an_environment(tmp_path: Path) -> None:
    runs = [text for name, text in instructions() if (name == "RUN" and "/opt/deeplab/bin" in text)
            or (name == "RUN" and "venv" in text)]  # fmt: skip
    assert len(runs) == 3
    for line in runs:
        line = line.replace("/opt/deeplab", str(tmp_path / "deeplab"))
        line = re.sub(r"^python ", f"{sys.executable} ", line)
        subprocess.run(line, shell=True, cwd=ROOT, check=True)
    code = "from deeplab.serve.app import build_app; from deeplab import Segmenter"
    code += "; build_app({'voc': Segmenter('voc')})"
    subprocess.run([tmp_path / "deeplab/bin/python", "-c", code], cwd=tmp_path, check=True)
