"""Who may come in, how a request is called, and what the log says of it."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Server, serving

from deeplab import cli
from deeplab.errors import InputError
from deeplab.serve import browser_page
from deeplab.serve.door import Rules
from deeplab.serve.edge import Edge
from deeplab.serve.metrics import Metrics
from deeplab.serve.rate import TABLE_BYTES, Rate, name_client

pytest.importorskip("fastapi")

TOKEN = "a-token-of-letters"


@pytest.fixture(scope="module")
def guarded(
    model: Path, labels: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Yield a server behind all its doors, with a log for programs."""
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.write_text(f"# of two people\nanother-token\n\n{TOKEN}\n")
    options = (
        "--token", tokens, "--allow-origin", "https://example.org", "--allowed-host", "seg.example",
        "--allowed-host", "*.example.net", "--root-path", "/seg", "--rate", 600,
        "--log-format", "json",
    )  # fmt: skip
    with serving("-m", model, "--labels", labels, *options) as running:
        yield running


BEARER = {"Authorization": f"Bearer {TOKEN}", "Host": "seg.example"}


def detail(answer: object, status: int) -> str:
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")
    return answer.json()["detail"]


def test_an_answer_on_a_kept_connection_does_not_wait(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    times = []
    for _ in range(30):
        start = time.perf_counter()
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        times.append(time.perf_counter() - start)
    connection.close()
    # Where the system waits for more to send, every one of them takes 40 ms.
    assert statistics.quantiles(times, n=4)[0] < 0.03


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/metrics", "/docs", "/openapi.json", "/nothing"]
)
def test_head_is_get_without_the_body(server: Server, path: str) -> None:
    got, head = server.get(path), server.ask("HEAD", path)
    assert (head.status, head.body) == (got.status, b"")
    assert head.headers["Content-Type"] == got.headers["Content-Type"]
    if path != "/metrics":
        assert head.headers["Content-Length"] == got.headers["Content-Length"]
    answer = server.ask("HEAD", "/v1/segment")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")


def test_what_is_no_http_is_told_so_as_everything_else(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nno header\r\n\r\n")
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == 400
        assert response.headers["Content-Type"] == "application/problem+json"
        assert json.loads(response.read())["status"] == 400


# --- tokens -----------------------------------------------------------------------------------


def test_a_token_is_asked_for(guarded: Server, photo: bytes) -> None:
    host = {"Host": "seg.example"}
    for path in ("/", "/v1/models", "/metrics", "/docs", "/openapi.json", "/nothing"):
        answer = guarded.ask("GET", path, headers=host)
        assert "Authorization: got none" in detail(answer, 401)
        assert answer.headers.get_all("WWW-Authenticate") == [
            'Basic realm="deeplab"', 'Bearer realm="deeplab"'
        ]  # fmt: skip
    for path in ("/healthz", "/livez", "/readyz"):
        assert guarded.ask("GET", path, headers=host).status == 200
    wrong = {**host, "Authorization": "Bearer wrong"}
    assert "got another" in detail(guarded.ask("POST", "/v1/segment", photo, wrong), 401)
    assert guarded.ask("POST", "/v1/segment", photo, BEARER).status == 200
    second = {**host, "Authorization": "bearer another-token"}
    assert guarded.ask("GET", "/v1/models", headers=second).status == 200
    password = base64.b64encode(f"anybody:{TOKEN}".encode()).decode()
    basic = {**host, "Authorization": f"Basic {password}"}
    assert guarded.ask("GET", "/", headers=basic).status == 200
    assert guarded.ask("GET", "/", headers={**host, "Authorization": "Basic ?"}).status == 401


def test_a_token_from_the_environment(model: Path, labels: Path) -> None:
    options = ("-m", model, "--labels", labels)
    with serving(*options, environment={"DEEPLAB_TOKEN": TOKEN}) as server:
        assert server.get("/v1/models").status == 401
        assert server.get("/v1/models", Authorization=f"Bearer {TOKEN}").status == 200


# --- hosts and origins ------------------------------------------------------------------------


def test_other_names_are_refused(guarded: Server, server: Server) -> None:
    for host in ("evil.example", "localhost", "seg.example.evil.example", "example.net"):
        answer = guarded.ask("GET", "/healthz", headers={"Host": host})
        assert "--allowed-host" in detail(answer, 421)
    for host in ("seg.example:80", "SEG.example", "a.example.net", "127.0.0.1:8000", "[::1]"):
        assert guarded.ask("GET", "/healthz", headers={"Host": host}).status == 200
    # A server for this machine alone is called by the names of this machine.
    for host, status in (("evil.example", 421), ("localhost:8000", 200), ("127.0.0.1", 200)):
        assert server.ask("GET", "/", headers={"Host": host}).status == status


def test_pages_of_other_sites(guarded: Server, server: Server, photo: bytes) -> None:
    asks = {
        "Host": "seg.example",
        "Origin": "https://example.org",
        "Access-Control-Request-Method": "POST",
    }
    answer = guarded.ask("OPTIONS", "/v1/segment", headers=asks)
    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == "https://example.org"
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    evil = {**asks, "Origin": "https://evil.example"}
    answer = guarded.ask("OPTIONS", "/v1/segment", headers=evil)
    assert "--allow-origin" in detail(answer, 403)
    assert answer.headers["Access-Control-Allow-Origin"] is None
    assert answer.headers["Vary"] == "Origin"
    let_in = {**BEARER, "Origin": "https://example.org", "Sec-Fetch-Site": "cross-site"}
    answer = guarded.ask("POST", "/v1/segment", photo, let_in)
    assert answer.status == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "https://example.org"
    assert "Server-Timing" in answer.headers["Access-Control-Expose-Headers"]
    # Refusals can be read there, too.
    answer = guarded.ask("POST", "/v1/segment", b"none", let_in)
    assert answer.headers["Access-Control-Allow-Origin"] == "https://example.org"
    # A browser says where a request comes from; nobody else's page puts work on this machine.
    other = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert "--allow-origin" in detail(server.ask("POST", "/v1/segment", photo, other), 403)
    assert server.ask("POST", "/v1/segment", photo, {"Sec-Fetch-Site": "same-origin"}).status == 200


def test_below_a_path(guarded: Server) -> None:
    for path in ("/v1/models", "/seg/v1/models"):
        assert guarded.ask("GET", path, headers=BEARER).status == 200
    for path in ("/seg/", "/seg/docs", "/seg/models/tiny.tflite"):
        assert guarded.ask("GET", path, headers=BEARER).status == 200
    assert guarded.ask("GET", "/segment/v1/models", headers=BEARER).status == 404
    description = guarded.ask("GET", "/seg/openapi.json", headers=BEARER).json()
    assert description["servers"] == [{"url": "/seg"}]
    assert description["security"] == [{"token": []}]
    # The page asks for everything relative to itself.
    page = browser_page.BUILT / "index.html"
    if page.is_file():
        assert not re.findall(r'(?:src|href)="/', page.read_text("utf-8"))


# --- how often --------------------------------------------------------------------------------


def test_each_client_has_its_rate(model: Path, labels: Path, photo: bytes) -> None:
    with serving("-m", model, "--labels", labels, "--rate", 3) as server:
        first = {"X-Forwarded-For": "203.0.113.5"}  # as a proxy on this machine tells
        statuses = [server.ask("POST", "/v1/segment", photo, first).status for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        answer = server.ask("POST", "/v1/segment", photo, first)
        assert "too many requests from 203.0.113.5" in detail(answer, 429)
        assert 1 <= int(answer.headers["Retry-After"]) <= 20
        assert server.ask("GET", "/v1/models", headers=first).status == 200
        assert server.post("/v1/segment", photo).status == 200  # another client


def test_a_bucket_fills_again_and_networks_of_ipv6_count_as_one() -> None:
    class Lock:
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    rate = Rate(60, memory=bytearray(TABLE_BYTES), lock=Lock())
    assert [rate.take("a", now=1000.0) for _ in range(60)] == [0] * 60
    assert rate.take("a", now=1000.0) == 1
    assert rate.take("b", now=1000.0) == 0
    assert rate.take("a", now=1002.0) == 0
    # More clients than there is room for push out those that were there longest ago.
    assert all(rate.take(f"c{n}", now=1003.0) == 0 for n in range(6000))
    assert name_client("2001:db8::1:2") == name_client("2001:db8::ffff:9") == "2001:db8::/64"
    assert name_client("::ffff:192.0.2.1") == "192.0.2.1"


# --- names of requests, and the log -----------------------------------------------------------


def test_a_request_has_a_name_that_goes_on(server: Server) -> None:
    name = server.get("/healthz").headers["X-Request-ID"]
    assert re.fullmatch("[0-9a-f]{32}", name)
    assert server.get("/", **{"X-Request-ID": "job-17"}).headers["X-Request-ID"] == "job-17"
    for bad in ("a b", "x" * 200, "ä"):
        answer = server.ask("GET", "/", headers={"X-Request-ID": bad.encode("latin-1")})
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    told = server.get("/healthz", traceparent=f"00-{trace}-00f067aa0ba902b7-01")
    assert re.fullmatch(f"00-{trace}-[0-9a-f]{{16}}-01", told.headers["traceparent"])
    assert "00f067aa0ba902b7" not in told.headers["traceparent"]
    for bad in (f"00-{'0' * 32}-00f067aa0ba902b7-01", f"ff-{trace}-00f067aa0ba902b7-01", "x"):
        assert server.get("/healthz", traceparent=bad).headers["traceparent"] is None


def test_the_log_for_programs(guarded: Server, photo: bytes) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {
        **BEARER, "X-Request-ID": "job-18", "traceparent": f"00-{trace}-00f067aa0ba902b7-00"
    }  # fmt: skip
    guarded.ask("POST", "/v1/segment?output=mask", photo, headers)
    (line,) = guarded.wait_for_log('"request_id": "job-18"')
    told = json.loads(line)
    assert told["message"].startswith("127.0.0.1 POST /v1/segment?output=mask 200 ")
    expected = {
        "level": "info", "client": "127.0.0.1", "method": "POST", "status": 200, "model": "tiny",
        "photos": 1, "bytes_in": len(photo), "trace_id": trace, "parent_id": "00f067aa0ba902b7",
        "target": "/v1/segment?output=mask",
    }  # fmt: skip
    assert {name: told[name] for name in expected} == expected
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told["time"])
    assert TOKEN not in "".join(guarded.log)


def test_each_model_has_a_histogram_of_its_times(server: Server, photo: bytes) -> None:
    server.post("/v1/segment", photo)
    for name in ("deeplab_photo_seconds", "deeplab_wait_seconds"):
        count = server.metric(f'{name}_count{{model="tiny"}}')
        assert count >= 1
        assert server.metric(f'{name}_bucket{{model="tiny",le="+Inf"}}') == count
        assert server.metric(f'{name}_sum{{model="tiny"}}') >= 0


# --- what the command refuses -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--token", "nothing.txt"), "--token: cannot read nothing.txt"),
        (("--allow-origin", "example.org"), "allow-origin: got 'example.org', expected scheme"),
        (("--allowed-host", "http://a.org"), "allowed-host: got 'http://a.org', expected a name"),
        (("--root-path", "seg/"), "root-path: got 'seg/', expected a path such as /segment"),
        (("--api", "kserv"), "Did you mean 'kserve'?"),
        (("--log-format", "xml"), "--log-format: there is no 'xml'. Expected: text, json"),
        (("--rate", -1), "rate: got -1"),
        (("--rate", 0), "rate: got 0"),
    ],
)
def test_wrong_options(
    capsys: pytest.CaptureFixture[str], options: tuple[object, ...], words: str
) -> None:
    assert cli.run(["serve", "--port", "0", *map(str, options)]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert len(told.strip().splitlines()) == 1


def test_tokens_that_are_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.write_text("# none\n")
    assert cli.run(["serve", "--port", "0", "--token", str(empty)]) == 2
    assert "there is no token in" in capsys.readouterr().err
    monkeypatch.setenv("DEEPLAB_TOKEN", "short")
    assert cli.run(["serve", "--port", "0"]) == 2
    told = capsys.readouterr().err
    assert "at least 8 visible ASCII letters" in told
    assert "short" not in told
    with pytest.raises(InputError, match="at least 8"):
        Rules(tokens=("with a space",))


def test_a_fault_of_ours_is_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: object, receive: object, send: object) -> None:
        raise RuntimeError("no good")

    async def check() -> list[dict]:
        sent: list[dict] = []

        async def send(message: dict) -> None:
            sent.append(message)

        edge = Edge(broken, headers={}, metrics=Metrics(), closing=lambda: False)
        headers = [(b"x-request-id", b"job-19")]
        scope = {"type": "http", "method": "GET", "path": "/", "headers": headers,
                 "query_string": b""}  # fmt: skip
        await edge(scope, None, send)
        return sent

    start, body = asyncio.run(check())
    assert start["status"] == 500
    assert (b"content-type", b"application/problem+json") in start["headers"]
    assert (b"x-request-id", b"job-19") in start["headers"]
    assert "no good" not in json.loads(body["body"])["detail"]
    assert "job-19 failed" in caplog.text
    assert "RuntimeError: no good" in caplog.text
