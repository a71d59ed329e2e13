"""What a stand-in hub holds: files, commits and repositories; see `tests/helpers/hub.py`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

Kind = Literal["models", "datasets"]
Rows = Sequence[str] | Sequence[Mapping[str, object]]
"""Rows of a split; strings are rows with the one column "text"."""

# The hub keeps large binary files in LFS, which changes their ETag and their listing.
_LFS_SUFFIXES = frozenset({".safetensors", ".bin", ".parquet", ".arrow", ".pt", ".h5", ".msgpack"})
_LFS_POINTER_SIZE = 134
_COMMIT_DATE = "2024-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class File:
    """One file of a commit; its content lies in a store of the hub's own, named by its hash."""

    path: str
    size: int
    blob_id: str
    sha256: str
    store: Path

    @classmethod
    def keep(cls, path: str, content: bytes, store: Path) -> File:
        """Puts a content into the store."""
        blob_id = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        file = cls(path, len(content), blob_id, hashlib.sha256(content).hexdigest(), store)
        store.mkdir(parents=True, exist_ok=True)
        (store / file.sha256).write_bytes(content)
        return file

    @property
    def content(self) -> bytes:
        """The file's bytes."""
        return (self.store / self.sha256).read_bytes()

    @property
    def is_lfs(self) -> bool:
        """Whether the hub would keep the file in LFS."""
        return PurePosixPath(self.path).suffix in _LFS_SUFFIXES

    @property
    def etag(self) -> str:
        """What identifies the content over HTTP, without its quotes."""
        return self.sha256 if self.is_lfs else self.blob_id

    def listing(self) -> dict[str, object]:
        """The file's entry in a tree."""
        entry: dict[str, object] = {
            "type": "file",
            "path": self.path,
            "oid": self.blob_id,
            "size": self.size,
        }
        if self.is_lfs:
            entry["lfs"] = {
                "oid": self.sha256,
                "size": self.size,
                "pointerSize": _LFS_POINTER_SIZE,
            }
        return entry


@dataclass(frozen=True)
class Commit:
    """All files of a repository at one time."""

    files: Mapping[str, File]

    @classmethod
    def of_folder(cls, folder: Path, store: Path) -> Commit:
        """A commit of what is in a folder now; later changes of the folder don't show."""
        if not folder.is_dir():
            raise NotADirectoryError(f"a repository is made from a folder, and {folder} is none")
        sources = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        names = [path.relative_to(folder).as_posix() for path in sources]
        return cls(
            {
                name: File.keep(name, source.read_bytes(), store)
                for name, source in zip(names, sources, strict=True)
            }
        )

    @classmethod
    def of_rows(cls, configs: Mapping[str, Mapping[str, Rows]], store: Path) -> Commit:
        """A data set as the hub has it: a parquet file per split, and a README that names them."""
        contents = {"README.md": _card(configs)}
        for config, splits in configs.items():
            for split, rows in splits.items():
                contents[f"{config}/{split}-00000-of-00001.parquet"] = _parquet(rows)
        return cls({path: File.keep(path, content, store) for path, content in contents.items()})

    @cached_property
    def sha(self) -> str:
        """The commit's name: equal contents have equal ones."""
        digest = hashlib.sha1()
        for name, file in sorted(self.files.items()):
            digest.update(f"{name}\0{file.blob_id}\0".encode())
        return digest.hexdigest()

    @cached_property
    def folders(self) -> frozenset[str]:
        """The paths of all folders but the top one."""
        parents = {str(parent) for name in self.files for parent in PurePosixPath(name).parents}
        return frozenset(parents - {"."})

    def entry(self, path: str, expand: bool) -> dict[str, object] | None:
        """The listing of a file or folder, with its last commit if `expand`; None if missing."""
        if path in self.files:
            entry = self.files[path].listing()
        elif path in self.folders:
            oid = hashlib.sha1(path.encode()).hexdigest()
            entry = {"type": "directory", "path": path, "oid": oid, "size": 0}
        else:
            return None
        if expand:
            entry["lastCommit"] = {"id": self.sha, "title": "Add files", "date": _COMMIT_DATE}
        return entry

    def below(self, folder: str, recursive: bool) -> Iterator[str]:
        """The paths of what is in a folder ("" for the top one)."""
        prefix = f"{folder}/" if folder else ""
        for path in sorted({*self.folders, *self.files}):
            if path.startswith(prefix) and (recursive or "/" not in path.removeprefix(prefix)):
                yield path


@dataclass
class Repository:
    """A repository with one branch, main, and every commit that main ever was at."""

    kind: Kind
    name: str
    head: str = ""
    commits: dict[str, Commit] = field(default_factory=dict)

    def push(self, commit: Commit) -> str:
        """Puts main at the commit and returns its sha."""
        self.commits[commit.sha] = commit
        self.head = commit.sha
        return commit.sha

    def at(self, revision: str) -> Commit | None:
        """The commit that a branch name or sha stands for."""
        return self.commits.get(self.head if revision == "main" else revision)

    def info(self, commit: Commit) -> dict[str, object]:
        """What the hub tells about the repository at a commit."""
        siblings = [
            {"rfilename": name, "blobId": file.blob_id, "size": file.size}
            for name, file in commit.files.items()
        ]
        return {
            "_id": commit.sha[:24],
            "id": self.name,
            "modelId": self.name,
            "author": self.name.partition("/")[0],
            "sha": commit.sha,
            "createdAt": _COMMIT_DATE,
            "lastModified": _COMMIT_DATE,
            "private": False,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": siblings,
        }

    def refs(self) -> dict[str, object]:
        """The repository's branches; it has no tags and no pull requests."""
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": self.head}
        return {"branches": [main], "converts": [], "tags": [], "pullRequests": []}


def _card(configs: Mapping[str, Mapping[str, Rows]]) -> bytes:
    lines = ["---", "configs:"]
    for config, splits in configs.items():
        lines += [f"- config_name: {json.dumps(config)}", "  data_files:"]
        for split in splits:
            path = json.dumps(f"{config}/{split}-*")
            lines += [f"  - split: {json.dumps(split)}", f"    path: {path}"]
    return "\n".join([*lines, "---", "", "# Data set", ""]).encode()


def _parquet(rows: Rows) -> bytes:
    columns = [{"text": row} if isinstance(row, str) else dict(row) for row in rows]
    table = pa.Table.from_pylist(columns) if columns else pa.table({"text": pa.array([], "string")})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content
