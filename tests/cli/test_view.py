"""`kleval view`: what it refuses, in one line."""

from __future__ import annotations

import socket
from collections.abc import Callable

from stored_runs import make_run

from kleval.store import RunStore

__all__ = ["make_run"]


def test_a_port_in_use_is_one_line_that_names_another_way(
    make_run: Callable[..., RunStore], one_line: Callable[..., str]
) -> None:
    make_run("good", models=("one",))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = one_line(["view", "good", "--port", str(port)])
    assert said == f"kleval: port {port} is in use: give another --port, or --port 0 for any that is free"


def test_a_folder_that_is_no_run_is_one_line(one_line: Callable[..., str]) -> None:
    assert "holds no run" in one_line(["view", "."])
    assert "no such run directory" in one_line(["view", "nowhere"])
