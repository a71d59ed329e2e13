"""Requests and responses of a stand-in hub; see `tests/helpers/hub.py`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.message import Message
from urllib.parse import parse_qs, unquote

from tests.helpers.hub_repository import File


@dataclass(frozen=True)
class Request:
    """A request, and what it asks in its query or body."""

    method: str
    raw_path: str
    query: str
    headers: Message
    body: bytes

    @property
    def path(self) -> str:
        """The path as people write it."""
        return unquote(self.raw_path)

    def values(self, name: str) -> list[str]:
        """The values of a field of the query or of the posted form (or JSON object)."""
        if "json" in self.headers.get("Content-Type", ""):
            posted = json.loads(self.body).get(name, [])
            return [str(value) for value in (posted if isinstance(posted, list) else [posted])]
        fields = parse_qs(self.query) | parse_qs(self.body.decode())
        return fields.get(name, [])

    def flag(self, name: str) -> bool:
        """Whether a field says yes."""
        return [value.lower() for value in self.values(name)] in (["true"], ["1"])


@dataclass(frozen=True)
class Response:
    """A response, or as much of it as goes out."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    sent: int | None = None  # the bytes that go out before the connection is cut; None: all

    def having(self, headers: Mapping[str, str]) -> Response:
        """The same response with more headers."""
        return replace(self, headers={**self.headers, **headers})


def json_response(content: object, status: int = 200) -> Response:
    """A response of the hub's API."""
    return Response(status, json.dumps(content).encode(), {"Content-Type": "application/json"})


def error_response(status: int, message: str, code: str | None = None) -> Response:
    """An error; clients choose the exception by the code more than by the status."""
    response = json_response({"error": message}, status).having({"X-Error-Message": message})
    return response.having({"X-Error-Code": code}) if code else response


def download(file: File, request: Request) -> Response:
    """The file, or the part of it that a Range header asks for."""
    size = file.size
    headers = {
        "Content-Type": "application/octet-stream",
        "ETag": f'"{file.etag}"',
        "Accept-Ranges": "bytes",
    }
    if file.is_lfs:
        headers |= {"X-Linked-ETag": f'"{file.etag}"', "X-Linked-Size": str(size)}
    wanted = re.fullmatch(r"bytes=(?!-$)(\d*)-(\d*)", request.headers.get("Range", ""))
    if wanted is None or request.method == "HEAD":
        return Response(200, file.content, headers)
    first, last = wanted.groups()
    start = int(first) if first else max(0, size - int(last))
    stop = min(int(last) + 1, size) if first and last else size
    if start >= stop:
        error = error_response(416, "Requested range not satisfiable")
        return error.having({"Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return Response(206, file.content[start:stop], headers)
