"""The hub and its cache on this machine: what is there, and why something could not be loaded."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator

from ftcheck.errors import DiskError, FtcheckError, InputError, Unavailable, chain

__all__ = ["ask_for_dataset", "ask_for_model", "disk_refusals", "hub_refusals", "in_cache"]

_WAYS_OUT = (
    "Three ways out: name a local folder or file instead; or fetch it once where there is a "
    "network and set HF_HUB_OFFLINE=1 to use the cache ({cache}); or run the built-in recipe, "
    "which needs no network: ftcheck run quickstart"
)
_OFFLINE_SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_DISK_ERRNOS = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than is allowed here",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
}
# torch.save loses the errno on the way through C++ streams.
_TORCH_WRITE_FAILURES = ("PytorchStreamWriter failed writing", "iostream error")


@contextlib.contextmanager
def hub_refusals(what: str, place: str, ask: Callable[[], object] | None) -> Iterator[None]:
    """Turn the libraries' many ways to say "not available" into `Unavailable`.

    Args:
        what: What is asked for, such as `model "gpt2"`.
        place: `file:line` in the recipe that asks for it.
        ask: Requests the same thing from the hub once more, in a shorter way. The libraries turn
            some refusals (429 on the weights, say) into "no such file" without a cause; this
            request raises the cause. `None` for what is on this disk.

    Raises:
        Unavailable: The hub answered with an error, was not reached, or has no such thing.
        DiskError: The cache cannot be written.
        InputError: What came is not what it should be.
    """
    try:
        with disk_refusals():
            yield
    except FtcheckError:
        raise
    except Exception as error:
        reason = None if ask is None else _reason(error) or _reason_of(ask)
        if reason is not None:
            raise Unavailable(
                f"{place}: {what}", where=_endpoint(), reason=reason, next_step=_ways_out()
            ) from error
        text = " ".join(str(error).split())
        shown = text if len(text) <= 400 else f"{text[:397]}…"
        raise InputError(
            f"{place}: {what} cannot be loaded: {type(error).__name__}: {shown}",
            next_step="Expected a causal language model with safetensors weights, or a data "
            "set, that the installed versions can read.",
        ) from error


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _ways_out() -> str:
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    return _WAYS_OUT.format(cache=home)


def _reason_of(ask: Callable[[], object]) -> str | None:
    try:
        ask()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is looked at for a reason
        return _reason(error)
    return None


def ask_for_model(name: str, revision: str | None) -> Callable[[], object]:
    """A request for the two files without which no model loads: configuration and weights."""

    def ask() -> None:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        for file in ("config.json", "model.safetensors"):
            get_hf_file_metadata(hf_hub_url(name, file, revision=revision))

    return ask


def ask_for_dataset(name: str, revision: str | None) -> Callable[[], object]:
    """A request for the description of a data set."""

    def ask() -> None:
        from huggingface_hub import HfApi

        HfApi().dataset_info(name, revision=revision)

    return ask


def in_cache(name: str, file: str, revision: str | None = None) -> bool:
    """Whether the hub's cache on this machine has a file of a model."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, file, revision=revision), str)


def _offline() -> bool:
    return any(
        os.environ.get(name, "").upper() in ("1", "TRUE", "YES", "ON") for name in _OFFLINE_SWITCHES
    )


def _reason(error: BaseException) -> str | None:
    """Why something could not be loaded, by the innermost error that says; `None` if none does."""
    if _offline() and any(type(link).__name__ in _OFFLINE_NAMES for link in chain(error)):
        return "it is not in the cache, and the network is switched off (HF_HUB_OFFLINE)"
    for link in reversed(list(chain(error))):
        status = getattr(getattr(link, "response", None), "status_code", None)
        if status is not None:
            return _STATUS.get(status, f"it answered with status {status}")
        if type(link).__name__ in _NETWORK_NAMES:
            return f"the connection failed ({_first_line(link)})"
    for link in chain(error):
        if type(link).__name__ in _MISSING_NAMES:
            return f"it is not there ({_first_line(link)})"
    return None


_STATUS = {
    401: "there is no such repository, or it needs a token (status 401)",
    403: "access is refused (status 403)",
    404: "there is no such repository, revision or file (status 404)",
    429: "too many requests (status 429)",
    500: "an error on its side (status 500)",
    502: "an error on its side (status 502)",
    503: "it is overloaded or down (status 503)",
    504: "it did not answer in time (status 504)",
}
# By name: the classes live in requests, urllib3, httpx or httpx2, by version of huggingface_hub.
_NETWORK_NAMES = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "ConnectionError",
        "ConnectionRefusedError",
        "ConnectionResetError",
        "ChunkedEncodingError",
        "IncompleteRead",
        "MaxRetryError",
        "NameResolutionError",
        "NewConnectionError",
        "ProtocolError",
        "ProxyError",
        "ReadError",
        "ReadTimeout",
        "ReadTimeoutError",
        "RemoteProtocolError",
        "SSLError",
        "Timeout",
        "TimeoutException",
        "gaierror",
    }
)
_OFFLINE_NAMES = frozenset(
    {
        "OfflineModeIsEnabled",
        "LocalEntryNotFoundError",
        "DatasetNotFoundError",
        "ConnectionError",
        "FileNotFoundError",
        "OSError",
    }
)
_MISSING_NAMES = frozenset(
    {
        "DatasetNotFoundError",
        "EntryNotFoundError",
        "GatedRepoError",
        "HFValidationError",
        "LocalEntryNotFoundError",
        "RepositoryNotFoundError",
        "RevisionNotFoundError",
    }
)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().split("\n")
    return lines[0] if lines[0] else type(error).__name__


@contextlib.contextmanager
def disk_refusals() -> Iterator[None]:
    """Turn the operating system's refusals to read or write into `DiskError`.

    Libraries in Rust and C++ pass them on as texts, so the text counts as well as the errno.

    Raises:
        DiskError: No space, no permission, or a read-only file system.
    """
    try:
        yield
    except FtcheckError:
        raise
    except Exception as error:
        reason = _disk_reason(error)
        if reason is None:
            raise
        file = next((f for e in chain(error) if (f := getattr(e, "filename", None))), None)
        subject = f"{file} cannot be used" if file else "A file cannot be written"
        raise DiskError(
            f"{subject}: {reason}.",
            next_step="Free some space or change the permissions; --output-dir chooses another "
            "place for the run, HF_HOME one for the cache.",
        ) from error


def _disk_reason(error: BaseException) -> str | None:
    for link in chain(error):
        if isinstance(link, OSError) and link.errno in _DISK_ERRNOS:
            return _DISK_ERRNOS[link.errno]
        text = str(link)
        if any(words in text for words in _TORCH_WRITE_FAILURES):
            return "the disk refused a write: no space, or a limit on the size of files"
        for number, words in _DISK_ERRNOS.items():
            if f"os error {number})" in text or os.strerror(number) in text:
                return words
    return None
