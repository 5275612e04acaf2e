"""`Viewer`: the page and whole prompts, for this machine alone, by number and by no path."""

from __future__ import annotations

import html
import http.client
import threading
from collections.abc import Callable, Iterator

import pytest

from kleval.report.viewer import HOST, Viewer
from kleval.store import RunStore

HAY = "grass is green\n" * 3000
ATTACK = "<script>alert(1)</script>"
Get = Callable[..., http.client.HTTPResponse]


def prompt(model: str, task: str, ctx: int, index: int) -> str:
    return f"{HAY}{ATTACK}{task} {ctx} {index} has 42.\n{HAY}"


@pytest.fixture
def get(make_run: Callable[..., RunStore]) -> Iterator[Get]:
    run = make_run(models=("one",), tasks=("ruler/vt",), ctxs=(1024,), n=2, prompt=prompt)
    with Viewer([run], 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

        def ask(path: str, host: str | None = None, method: str = "GET") -> http.client.HTTPResponse:
            connection = http.client.HTTPConnection(HOST, server.server_port, timeout=30)
            connection.request(method, path, headers={} if host is None else {"Host": host})
            return connection.getresponse()

        yield ask
        server.shutdown()


def test_the_page_asks_for_whole_prompts_and_gets_them_as_text(get: Get) -> None:
    page = get("/")
    text = html.unescape(page.read().decode())
    assert page.status == 200
    assert "data-served" in text
    assert "connect-src 'self'" in text
    found = get("/prompt/1")
    assert found.getheader("Content-Type") == "text/plain; charset=utf-8"
    assert found.getheader("X-Content-Type-Options") == "nosniff"
    assert found.read().decode() == prompt("one", "ruler/vt", 1024, 1)


@pytest.mark.parametrize(
    "path",
    [
        *("/prompt/2", "/prompt/-1", "/prompt/", "/prompt/0x0", "/prompt/%D9%A3", f"/prompt/{10**20}", "/prompt/0/"),
        *("/prompt/../run.json", "/prompt/%2e%2e/run.json", "/run.json", "//etc/passwd", "/../../etc/passwd", "/?"),
    ],
)
def test_nothing_else_is_there(get: Get, path: str) -> None:
    answer = get(path)
    assert answer.status == 404
    assert answer.read() == b"there is no such page\n"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:80", 200),
        ("localhost", 200),
        ("[::1]:9", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example:80", 403),
    ],
)
def test_a_request_under_another_name_is_refused(get: Get, host: str, status: int) -> None:
    assert get("/", host).status == status


def test_only_reading_is_answered(get: Get) -> None:
    assert get("/", method="HEAD").read() == b""
    assert get("/", method="POST").status == 501


def test_it_listens_to_this_machine_alone(make_run: Callable[..., RunStore]) -> None:
    with Viewer([make_run()], 0) as server:
        assert server.server_address[0] == "127.0.0.1"
        assert server.address == f"http://127.0.0.1:{server.server_port}/"
