"""Tests of the stand-in hub by its protocol; no library takes part."""

from __future__ import annotations

import http.client
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.helpers.hub import Fault, Hub


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    body: bytes


def ask(
    hub: Hub, path: str, method: str = "GET", headers: Mapping[str, str] | None = None
) -> Answer:
    """One request, without following where it leads."""
    address = hub.endpoint.removeprefix("http://")
    with closing(http.client.HTTPConnection(address, timeout=10)) as connection:
        connection.request(method, path, headers=dict(headers or {}))
        with connection.getresponse() as response:
            return Answer(response.status, response.headers, response.read())


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_bytes(b"0123456789")
    (folder / "sub" / "model.safetensors").write_bytes(b"weights")
    with Hub(tmp_path) as hub:
        hub.add_model("org/m", folder, aliases=("m",))
        yield hub


def test_head_tells_what_get_sends(hub: Hub) -> None:
    head = ask(hub, "/org/m/resolve/main/config.json", "HEAD")
    get = ask(hub, "/org/m/resolve/main/config.json")
    assert (head.status, head.body, get.body) == (200, b"", b"0123456789")
    for name in ("ETag", "X-Repo-Commit", "Content-Length", "Accept-Ranges"):
        assert head.headers[name] == get.headers[name] is not None


@pytest.mark.parametrize(
    ("asked", "status", "body", "content_range"),
    [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=5-99", 206, b"56789", "bytes 5-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
    ],
)
def test_range(hub: Hub, asked: str, status: int, body: bytes | None, content_range: str) -> None:
    answer = ask(hub, "/org/m/resolve/main/config.json", headers={"Range": asked})
    assert (answer.status, answer.headers["Content-Range"]) == (status, content_range)
    assert body is None or answer.body == body


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/org/m/resolve/main/none.json", "EntryNotFound"),
        ("/api/models/org/m/tree/main/none", "EntryNotFound"),
        ("/org/m/resolve/v9/config.json", "RevisionNotFound"),
        ("/api/models/org/m/revision/refs%2Fpr%2F1", "RevisionNotFound"),
        ("/api/models/org/none", "RepoNotFound"),
        ("/datasets/org/m/resolve/main/config.json", "RepoNotFound"),
        ("/api/nothing", None),
    ],
)
def test_not_found(hub: Hub, path: str, code: str | None) -> None:
    answer = ask(hub, path, headers={"Authorization": "Bearer x"})
    assert (answer.status, answer.headers["X-Error-Code"]) == (404, code)


def test_unknown_repository_without_token_is_unauthorized(hub: Hub) -> None:
    assert ask(hub, "/api/models/org/none").status == 401
    assert ask(hub, "/api/whoami-v2").status == 401


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/api/models/m", "/api/models/org/m"),
        ("/api/models/m/tree/main?recursive=true", "/api/models/org/m/tree/main?recursive=true"),
        ("/m/resolve/main/sub/m", "/org/m/resolve/main/sub/m"),
    ],
)
def test_alias_redirects(hub: Hub, old: str, new: str) -> None:
    answer = ask(hub, old)
    assert (answer.status, answer.headers["Location"]) == (307, new)


def test_tree(hub: Hub) -> None:
    top = json.loads(ask(hub, "/api/models/org/m/tree/main").body)
    whole = json.loads(ask(hub, "/api/models/org/m/tree/main?recursive=true&expand=True").body)
    assert [(entry["path"], entry["type"]) for entry in top] == [
        ("config.json", "file"),
        ("sub", "directory"),
    ]
    assert [entry["path"] for entry in whole] == ["config.json", "sub", "sub/model.safetensors"]
    assert all("lastCommit" in entry for entry in whole)
    assert whole[2]["lfs"]["size"] == len(b"weights")


def test_split_without_rows_has_the_text_column(hub: Hub) -> None:
    hub.add_dataset("org/d", {"default": {"train": []}})
    path = "/datasets/org/d/resolve/main/default/train-00000-of-00001.parquet"
    assert pq.read_table(io.BytesIO(ask(hub, path).body)).to_pydict() == {"text": []}


def test_pushed_commit_keeps_those_before(hub: Hub, tmp_path: Path) -> None:
    before = json.loads(ask(hub, "/api/models/org/m").body)["sha"]
    (tmp_path / "model" / "config.json").write_bytes(b"new")
    assert ask(hub, "/org/m/resolve/main/config.json").body == b"0123456789"
    after = hub.add_model("org/m", tmp_path / "model")
    assert ask(hub, "/org/m/resolve/main/config.json").body == b"new"
    assert ask(hub, f"/org/m/resolve/{before}/config.json").body == b"0123456789"
    assert after != before


def test_fault_for_a_number_of_times(hub: Hub) -> None:
    path = "/org/m/resolve/main/config.json"
    hub.fail("*/config.json", Fault.SERVER_ERROR, times=2)
    assert [ask(hub, path).status for _ in range(3)] == [500, 500, 200]
    assert hub.requests == [("GET", path, 500), ("GET", path, 500), ("GET", path, 200)]


def test_fault_for_one_method_until_healed(hub: Hub) -> None:
    path = "/org/m/resolve/main/config.json"
    hub.fail("*/config.json", Fault.TOO_MANY_REQUESTS, method="GET")
    assert (ask(hub, path, "HEAD").status, ask(hub, path).status) == (200, 429)
    hub.heal()
    assert ask(hub, path).status == 200


def test_cut_connection_never_gets_past_the_middle(hub: Hub) -> None:
    path = "/org/m/resolve/main/config.json"
    hub.fail("*", Fault.CUT_CONNECTION)
    with pytest.raises(http.client.IncompleteRead) as whole:
        ask(hub, path)
    with pytest.raises(http.client.IncompleteRead) as resumed:
        ask(hub, path, headers={"Range": "bytes=5-"})
    assert (whole.value.partial, whole.value.expected) == (b"01234", 5)
    assert (resumed.value.partial, resumed.value.expected) == (b"", 5)


def test_stopped_hub_answers_no_more(tmp_path: Path) -> None:
    with Hub(tmp_path) as hub:
        assert ask(hub, "/api/whoami-v2").status == 401
    with pytest.raises(ConnectionRefusedError):
        ask(hub, "/api/whoami-v2")


def test_hub_has_no_address_before_it_is_entered(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="before it was entered"):
        Hub(tmp_path).environment(tmp_path)


def test_model_is_made_from_a_folder(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError):
        hub.add_model("org/x", tmp_path / "none")


def test_patient_environment_leaves_waits_alone(hub: Hub, tmp_path: Path) -> None:
    assert "PYTHONPATH" in hub.environment(tmp_path)
    assert "PYTHONPATH" not in hub.environment(tmp_path, patient=True)
