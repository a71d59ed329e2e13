"""A Hugging Face hub on the loopback interface, for tests that may not reach the real one.

`Hub` speaks as much of the hub's HTTP protocol as `transformers`, `datasets` and
`huggingface_hub` need in order to load models, tokenizers and data sets. A program under test
needs no change: it is pointed here by the variables that `Hub.environment` returns.

    with Hub(tmp_path) as hub:
        hub.add_model("openai-community/gpt2", folder, aliases=("gpt2",))
        subprocess.run(command, env={**os.environ, **hub.environment(home)})
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from fnmatch import fnmatchcase
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, cast
from urllib.parse import unquote, urlsplit

from tests.helpers.hub_http import Request, Response, download, error_response, json_response
from tests.helpers.hub_repository import Commit, Kind, Repository, Rows

# A repository's name has one part or two, and the shorter reading is tried first.
_NAME = r"(?P<name>[^/]+(?:/[^/]+)??)"
_API_URL = re.compile(
    rf"/api/(?P<kind>models|datasets)/{_NAME}"
    r"(?:/(?P<action>revision|tree|paths-info|refs)(?:/(?P<revision>[^/]+)(?:/(?P<path>.+))?)?)?"
)
_FILE_URL = re.compile(
    rf"/(?:(?P<kind>datasets)/)?{_NAME}/(?P<action>resolve)/(?P<revision>[^/]+)/(?P<path>.+)"
)


# The libraries have no setting for how long they wait before a retry: up to 8 seconds, and 23 in
# all for each file. Python runs this in every process that finds it as sitecustomize.py.
_IMPATIENCE = """\
import sys
import time

_sleep = time.sleep


def sleep(seconds):
    caller = sys._getframe(1).f_globals.get("__name__", "").partition(".")[0]
    _sleep(min(seconds, 0.01) if caller in ("huggingface_hub", "datasets") else seconds)


time.sleep = sleep
"""


class Fault(Enum):
    """A way for the hub to go wrong; see `Hub.fail`."""

    TOO_MANY_REQUESTS = "429"
    SERVER_ERROR = "500"
    CUT_CONNECTION = "the full Content-Length, but nothing past the middle of the file"
    MISSING = "404 as for a file that is not in the repository"
    UNAUTHORIZED = "401 as for a token that is not valid"
    GATED = "401 as for a repository whose terms were not accepted"


class RecordedRequest(NamedTuple):
    """A request that the hub answered; the path is decoded and without its query."""

    method: str
    path: str
    status: int


class _Target(NamedTuple):
    """What a URL asks for."""

    kind: Kind
    name: str
    action: str
    revision: str
    path: str
    name_span: tuple[int, int]

    @classmethod
    def of(cls, raw_path: str) -> _Target | None:
        """None for a URL that is about no repository."""
        # A revision such as refs%2Fpr%2F1 has slashes of its own: match first, then decode.
        match = _API_URL.fullmatch(raw_path) or _FILE_URL.fullmatch(raw_path)
        if match is None:
            return None
        part = {name: unquote(text) for name, text in match.groupdict("").items()}
        return cls(
            cast(Kind, part["kind"] or "models"),
            part["name"],
            part["action"] or "revision",
            part["revision"] or "main",
            part["path"],
            match.span("name"),
        )

    def answer(self, repository: Repository, request: Request) -> Response:
        commit = repository.at(self.revision)
        if commit is None:
            return error_response(404, f"Invalid rev id: {self.revision}", "RevisionNotFound")
        if self.action == "revision":
            return json_response(repository.info(commit))
        if self.action == "refs":
            return json_response(repository.refs())
        response = self._content(commit, request)
        return response.having({"X-Repo-Commit": commit.sha})

    def _content(self, commit: Commit, request: Request) -> Response:
        if self.action == "resolve" and self.path in commit.files:
            return download(commit.files[self.path], request)
        expand = request.flag("expand")
        if self.action == "paths-info":
            entries = [commit.entry(path, expand) for path in request.values("paths")]
            return json_response([entry for entry in entries if entry is not None])
        if self.action == "tree" and (not self.path or self.path in commit.folders):
            paths = commit.below(self.path, request.flag("recursive"))
            return json_response([commit.entry(path, expand) for path in paths])
        return error_response(404, "Entry not found", "EntryNotFound")


def _broken(response: Response, fault: Fault) -> Response:
    """What goes out instead of a response."""
    if fault is Fault.CUT_CONNECTION:
        # Clients resume with a Range: given half of what is left each time, they'd nearly arrive.
        return replace(response, sent=0 if response.status == 206 else len(response.body) // 2)
    if fault is Fault.TOO_MANY_REQUESTS:
        error = error_response(429, "We had to rate limit your IP.")
    elif fault is Fault.SERVER_ERROR:
        error = error_response(500, "Internal Error")
    elif fault is Fault.MISSING:
        error = error_response(404, "Entry not found", "EntryNotFound")
    elif fault is Fault.UNAUTHORIZED:
        error = error_response(401, "Invalid credentials in Authorization header")
    else:
        error = error_response(401, "Access to this repository is restricted.", "GatedRepo")
    commit = {name: sha for name, sha in response.headers.items() if name == "X-Repo-Commit"}
    return error.having(commit)


@dataclass
class _PlannedFault:
    pattern: str
    fault: Fault
    method: str | None
    left: int | None

    def strikes(self, request: Request) -> bool:
        """Whether this request fails, which uses up one of the times."""
        if self.left == 0 or not fnmatchcase(request.path, self.pattern):
            return False
        # A HEAD has no body to cut.
        unhurt = self.fault is Fault.CUT_CONNECTION and request.method == "HEAD"
        if unhurt or self.method not in (None, request.method):
            return False
        if self.left is not None:
            self.left -= 1
        return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *arguments: object) -> None:
        self._hub = hub
        super().__init__(*arguments)  # type: ignore[arg-type]

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        request = Request(self.command, url.path, url.query, self.headers, body)
        response = self._hub._answer(request)
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(response.body)))
        # A connection kept alive would still be answered after the hub was stopped.
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body[: response.sent])

    do_GET = do_HEAD = do_POST = _serve

    def log_message(self, format: str, *args: object) -> None:
        """Writes nothing: `Hub.requests` is the log."""


class Hub:
    """A hub that answers, while used as a context manager, with what was added to it."""

    def __init__(self, folder: Path) -> None:
        """`folder` is where the hub keeps copies of what is added to it."""
        self.requests: list[RecordedRequest] = []
        """Every request answered so far, in order, with redirects and faults."""
        self._store = folder / "hub-files"
        self._site = folder / "hub-site"
        self._repositories: dict[tuple[Kind, str], Repository] = {}
        self._aliases: dict[tuple[Kind, str], str] = {}
        self._faults: list[_PlannedFault] = []
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self._port: int | None = None

    def __enter__(self) -> Hub:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._port = self._server.server_port
        serve = partial(self._server.serve_forever, poll_interval=0.05)
        threading.Thread(target=serve, name="hub", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def endpoint(self) -> str:
        """The hub's URL, which stays known after the hub was stopped."""
        if self._port is None:
            raise RuntimeError("a hub has no address before it was entered with 'with'")
        return f"http://127.0.0.1:{self._port}"

    def add_model(self, repository: str, folder: Path, aliases: Iterable[str] = ()) -> str:
        """Serves a copy of a folder as a model and returns its commit's sha.

        `aliases` are older names, which the hub redirects. To add another folder under the same
        name moves main there and keeps the commits before, as a push would.
        """
        return self._push("models", repository, Commit.of_folder(folder, self._store), aliases)

    def add_dataset(
        self,
        repository: str,
        configs: Mapping[str, Mapping[str, Rows]],
        aliases: Iterable[str] = (),
    ) -> str:
        """Serves rows by config and split as a data set and returns its commit's sha."""
        return self._push("datasets", repository, Commit.of_rows(configs, self._store), aliases)

    def fail(
        self, pattern: str, fault: Fault, times: int | None = None, method: str | None = None
    ) -> None:
        """Lets requests fail whose path (such as /org/name/resolve/main/file) matches a glob.

        With `times`, so many responses fail, HEAD and GET counted alike, and the next ones are
        good again; with `method`, only requests with it fail. Redirects from an alias don't fail,
        and the path compared is the one that they lead to. The fault planned first goes first.
        """
        with self._lock:
            self._faults.append(_PlannedFault(pattern, fault, method, times))

    def heal(self) -> None:
        """Forgets all planned faults."""
        with self._lock:
            self._faults.clear()

    def environment(self, home: Path, patient: bool = False) -> dict[str, str]:
        """What to put over `os.environ` for a process that uses this hub and keeps all in `home`.

        Variables can be set this way and not removed, so those that would lead elsewhere (an
        offline mode, a cache, a proxy, a token) are set to what has no effect. Unless `patient`,
        the libraries in that process retry as often as ever, but don't wait before they do.
        """
        offline = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
        switched_off = (
            "HF_HUB_DISABLE_TELEMETRY",
            "HF_HUB_DISABLE_XET",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN",
            "HF_HUB_DISABLE_PROGRESS_BARS",
            "HF_HUB_DISABLE_UPDATE_CHECK",
            "HF_DATASETS_DISABLE_PROGRESS_BARS",
            "DISABLE_SAFETENSORS_CONVERSION",
        )
        waits = {} if patient else {"PYTHONPATH": self._impatient_path()}
        return {
            **waits,
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_DATASETS_CACHE": str(home / "datasets"),
            "HF_TOKEN": "",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "HF_HUB_ENABLE_HF_TRANSFER": "0",
            "NO_PROXY": "*",
            "no_proxy": "*",
            **dict.fromkeys(offline, "0"),
            **dict.fromkeys(switched_off, "1"),
        }

    def _impatient_path(self) -> str:
        self._site.mkdir(parents=True, exist_ok=True)
        (self._site / "sitecustomize.py").write_text(_IMPATIENCE)
        before = os.environ.get("PYTHONPATH")
        return os.pathsep.join([str(self._site), *([before] if before else [])])

    def _push(self, kind: Kind, name: str, commit: Commit, aliases: Iterable[str]) -> str:
        with self._lock:
            repository = self._repositories.setdefault((kind, name), Repository(kind, name))
            self._aliases |= {(kind, alias): name for alias in aliases}
            return repository.push(commit)

    def _answer(self, request: Request) -> Response:
        with self._lock:
            response = self._route(request)
            if response.status != 307:
                fault = next((f.fault for f in self._faults if f.strikes(request)), None)
                response = _broken(response, fault) if fault else response
            self.requests.append(RecordedRequest(request.method, request.path, response.status))
            return response

    def _route(self, request: Request) -> Response:
        if request.raw_path == "/api/whoami-v2":
            return error_response(401, "Invalid username or password.")
        target = _Target.of(request.raw_path)
        if target is None:
            return error_response(404, "Not Found")
        name = self._aliases.get((target.kind, target.name))
        if name is not None:
            start, end = target.name_span
            path = request.raw_path[:start] + name + request.raw_path[end:]
            query = f"?{request.query}" if request.query else ""
            return Response(307, headers={"Location": path + query})
        repository = self._repositories.get((target.kind, target.name))
        if repository is None:
            # Who has not said who they are isn't told whether a private repository exists.
            status = 404 if "Authorization" in request.headers else 401
            return error_response(status, "Repository not found", "RepoNotFound")
        return target.answer(repository, request)
