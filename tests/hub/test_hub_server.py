"""Tests of the stand-in hub by what the libraries make of it, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.hub import Fault, Hub
from tests.helpers.hub_repository import Rows

TYPED: list[dict[str, object]] = [{"id": 1, "label": "x"}, {"id": 2, "label": None}]
ROWS: dict[str, dict[str, Rows]] = {
    "wikitext-2-raw-v1": {
        "train": [f"line {number}" for number in range(20)],
        "validation": ["a", "b"],
        "test": ["c"],
    },
    "typed": {"train": TYPED},
}

# Run by a process of its own, with nothing in it about the stand-in: results go out as JSON.
ONLINE = """
import json, sys
import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, sha, faulty = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])

def outcome(action):
    try:
        return {"value": action()}
    except Exception as error:
        bases = [base.__name__ for base in type(error).__mro__]
        message, chain = str(error), []
        while error is not None:
            chain.append(type(error).__name__)
            hidden = error.__suppress_context__
            error = error.__cause__ or (None if hidden else error.__context__)
        return {"chain": chain, "bases": bases, "message": message}

def logits(name, **options):
    model = AutoModelForCausalLM.from_pretrained(name, **options)
    return model(torch.arange(12)[None]).logits.tolist()

def rows(name, config="wikitext-2-raw-v1", split="train", **options):
    return list(load_dataset(name, config, split=split, **options))

results = {
    "local": outcome(lambda: logits(folder)),
    "alias": outcome(lambda: logits("gpt2")),
    "main": outcome(lambda: logits("openai-community/gpt2", revision="main")),
    "pinned": outcome(lambda: logits("gpt2", revision=sha)),
    "tokens": outcome(lambda: AutoTokenizer.from_pretrained("gpt2")("the cat sat")["input_ids"]),
    "local tokens": outcome(
        lambda: AutoTokenizer.from_pretrained(folder)("the cat sat")["input_ids"]
    ),
    "rows": outcome(lambda: rows("Salesforce/wikitext")),
    "test rows": outcome(lambda: rows("Salesforce/wikitext", split="test")),
    "typed rows": outcome(lambda: rows("Salesforce/wikitext", "typed")),
    "short name": outcome(lambda: rows("wikitext")),
    "no model": outcome(lambda: logits("org/none")),
    "no dataset": outcome(lambda: rows("org/none")),
    "no model revision": outcome(lambda: logits("gpt2", revision="v9")),
    "no dataset revision": outcome(lambda: rows("org/unread", revision="v9")),
}
for name in faulty:
    what = name.split("/")[1].split("-")[0]
    load = rows if what in ("parquet", "dataset") else logits
    results[name] = outcome(lambda: load(name))
results["first"] = outcome(lambda: logits("org/recovers"))
results["second"] = outcome(lambda: logits("org/recovers"))
print(json.dumps(results))
"""

AGAIN = """
import json, sys
import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("gpt2")
data = load_dataset("Salesforce/wikitext", "wikitext-2-raw-v1", split="train")
print(json.dumps({
    "logits": model(torch.arange(12)[None]).logits.tolist(),
    "tokens": AutoTokenizer.from_pretrained("gpt2")("the cat sat")["input_ids"],
    "rows": list(data),
}))
"""


@dataclass(frozen=True)
class Case:
    """A fault of some files, and what comes out of loading a model or data set that has it."""

    what: str
    fault: Fault
    classes: tuple[str, ...]
    """The class of the exception: one that it has in some version of the libraries."""
    message: str = ""
    method: str | None = None

    @property
    def repository(self) -> str:
        return f"org/{self.what}-{self.fault.name}-{self.method or 'any'}"

    @property
    def pattern(self) -> str:
        kind = "/datasets/" if self.what in ("parquet", "dataset") else "/"
        ends = {
            "weights": "*.safetensors",
            "config": "*/config.json",
            "parquet": "*.parquet",
            "dataset": "*",
        }
        return f"{kind}{self.repository}/{ends[self.what]}"


# Told by a 429, a 500 or a gate that it can't have the weights, transformers says there are none.
NO_WEIGHTS = "does not appear to have a file named"
CASES = [
    Case("weights", Fault.TOO_MANY_REQUESTS, ("OSError",), NO_WEIGHTS),
    Case("weights", Fault.TOO_MANY_REQUESTS, ("OSError",), "429", method="GET"),
    Case("config", Fault.TOO_MANY_REQUESTS, ("OSError",), "couldn't connect to"),
    Case("parquet", Fault.TOO_MANY_REQUESTS, ("FileNotFoundError",), "An error happened"),
    Case("parquet", Fault.TOO_MANY_REQUESTS, ("HfHubHTTPError",), "429", method="GET"),
    Case("dataset", Fault.TOO_MANY_REQUESTS, ("FileNotFoundError",), "Couldn't find"),
    Case("weights", Fault.SERVER_ERROR, ("OSError",), NO_WEIGHTS),
    Case("weights", Fault.SERVER_ERROR, ("OSError",), "500", method="GET"),
    Case("config", Fault.SERVER_ERROR, ("OSError",), "couldn't connect to"),
    Case("parquet", Fault.SERVER_ERROR, ("FileNotFoundError",), "An error happened"),
    Case("parquet", Fault.SERVER_ERROR, ("HfHubHTTPError", "HTTPError"), "500", method="GET"),
    Case("dataset", Fault.SERVER_ERROR, ("FileNotFoundError",), "Couldn't find"),
    Case("weights", Fault.CUT_CONNECTION, ("OSError", "ChunkedEncodingError")),
    Case("config", Fault.CUT_CONNECTION, ("OSError", "ChunkedEncodingError")),
    Case("parquet", Fault.CUT_CONNECTION, ("RemoteProtocolError", "ChunkedEncodingError")),
    Case("weights", Fault.MISSING, ("OSError",), NO_WEIGHTS),
    Case("config", Fault.MISSING, ("ValueError",), "Unrecognized model"),
    Case("parquet", Fault.MISSING, ("FileNotFoundError",), "404"),
    Case("weights", Fault.UNAUTHORIZED, ("OSError",)),
    Case("config", Fault.UNAUTHORIZED, ("OSError",)),
    Case("parquet", Fault.UNAUTHORIZED, ("HfHubHTTPError", "FileNotFoundError")),
    Case("dataset", Fault.UNAUTHORIZED, ("HfHubHTTPError", "FileNotFoundError")),
    Case("weights", Fault.GATED, ("OSError",), NO_WEIGHTS),
    Case("config", Fault.GATED, ("OSError",), "gated repo"),
    Case("parquet", Fault.GATED, ("FileNotFoundError",), "401"),
    Case("dataset", Fault.GATED, ("DatasetNotFoundError",), "gated dataset"),
]


def make_model(folder: Path) -> None:
    """Writes a tiny GPT-2 with safetensors weights, and a byte-level BPE tokenizer."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    end = "<|endoftext|>"
    bpe = ByteLevelBPETokenizer()
    sentences = ["the cat sat on the mat", "a dog ran to the cat"]
    bpe.train_from_iterator(sentences, vocab_size=300, min_frequency=1, special_tokens=[end])
    fast: Any = PreTrainedTokenizerFast  # whose constructor has no types
    tokenizer = fast(tokenizer_object=bpe._tokenizer, bos_token=end, eos_token=end, unk_token=end)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=32, n_head=2, n_positions=64, vocab_size=300)
    config.bos_token_id = config.eos_token_id = 0
    GPT2LMHeadModel(config).save_pretrained(folder)


def run(script: str, arguments: list[str], variables: Mapping[str, str], cwd: Path) -> Any:
    """What a script prints as JSON in its last line."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
        cwd=cwd,
        timeout=120,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@dataclass(frozen=True)
class Visit:
    """What came of one process with a hub, and what is left after it was stopped."""

    hub: Hub
    results: dict[str, Any]
    variables: dict[str, str]
    cwd: Path


@pytest.fixture(scope="module")
def visit(tmp_path_factory: pytest.TempPathFactory) -> Visit:
    folder = tmp_path_factory.mktemp("visit")
    cwd = folder / "empty"
    cwd.mkdir()
    model = folder / "model"
    make_model(model)
    with Hub(folder) as hub:
        sha = hub.add_model("openai-community/gpt2", model, aliases=("gpt2",))
        hub.add_dataset("Salesforce/wikitext", ROWS, aliases=("wikitext",))
        # What was loaded before comes out of the cache in datasets 3.1, whatever the revision.
        hub.add_dataset("org/unread", ROWS)
        for case in CASES:
            hub.add_model(case.repository, model)
            hub.add_dataset(case.repository, ROWS)
            hub.fail(case.pattern, case.fault, method=case.method)
        hub.add_model("org/recovers", model)
        hub.fail("/org/recovers/*.safetensors", Fault.CUT_CONNECTION, times=1)
        variables = hub.environment(folder / "home")
        faulty = json.dumps([case.repository for case in CASES])
        results = run(ONLINE, [str(model), sha, faulty], variables, cwd)
    return Visit(hub, results, variables, cwd)


@pytest.mark.slow
@pytest.mark.parametrize("call", ["alias", "main", "pinned"])
def test_model_is_the_one_that_was_added(visit: Visit, call: str) -> None:
    assert visit.results[call]["value"] == visit.results["local"]["value"]


@pytest.mark.slow
def test_tokenizer_is_the_one_that_was_added(visit: Visit) -> None:
    assert visit.results["tokens"]["value"] == visit.results["local tokens"]["value"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "config", "split"),
    [
        ("rows", "wikitext-2-raw-v1", "train"),
        ("test rows", "wikitext-2-raw-v1", "test"),
        ("typed rows", "typed", "train"),
    ],
)
def test_rows_are_those_that_were_added(visit: Visit, call: str, config: str, split: str) -> None:
    added = [row if isinstance(row, Mapping) else {"text": row} for row in ROWS[config][split]]
    assert visit.results[call]["value"] == added


@pytest.mark.slow
def test_dataset_by_its_old_name(visit: Visit) -> None:
    """Loads up to some datasets 4; datasets 5.2 with huggingface_hub 2.4 wants a namespace."""
    found = visit.results["short name"]
    if "chain" in found:
        assert found["chain"][0] == "HfUriError"
        assert "Repository id must be 'namespace/name'" in found["message"]
    else:
        assert found["value"] == visit.results["rows"]["value"]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.repository.removeprefix("org/"))
def test_fault_gives_the_error_of_the_library(visit: Visit, case: Case) -> None:
    """What `from_pretrained` and `load_dataset` raise, each exception with its causes after "<".

    A is transformers 5.24, datasets 5.2, huggingface_hub 2.4; B is 4.57, 4.5, 0.36; C is 4.46,
    3.1, 0.26. "http" is httpx2.HTTPStatusError in A and requests.HTTPError in B and C. "hub" is
    HfHubHTTPError < http (in B, for a 500: http alone); "Local" is LocalEntryNotFoundError < hub.

    429 and 500, where the first request about a file, a HEAD, fails; in C also UNAUTHORIZED:
      weights  OSError "... does not appear to have a file named ...", without a cause
      config   OSError "We couldn't connect to ..." < Local
      parquet  FileNotFoundError < Local
      dataset  FileNotFoundError "Couldn't find any data file at ...", without a cause
    429 and 500 for GET alone; in A and B also UNAUTHORIZED:
      weights, config   OSError "There was a specific connection error ..." < hub
      parquet, dataset  hub
    CUT_CONNECTION:
      weights, config   A: OSError "Can't load ..." < httpx2.RemoteProtocolError, several times
      parquet, dataset  A: httpx2.RemoteProtocolError
      all four          B, C: requests.ChunkedEncodingError < urllib3's ProtocolError
    MISSING and GATED, where "cause" is (Remote)EntryNotFoundError or GatedRepoError, < http:
      weights  OSError "... does not appear to have a file named ...", without a cause
      config   MISSING: ValueError "Unrecognized model in ...", without a cause
               GATED: OSError "You are trying to access a gated repo." < cause
      parquet  FileNotFoundError < cause
      dataset  GATED: DatasetNotFoundError "... is a gated dataset ...", without a cause

    Retries, whose waits `Hub.environment` takes away: A waits 23 s a file for 429 and, at a HEAD,
    for 500, and 5 s for a cut; B 23 s a request for 500; C never.
    """
    found = visit.results[case.repository]
    assert "chain" in found, "nothing failed"
    assert found["chain"][0] in case.classes, found
    assert case.message in found["message"]
    is_os_error = found["chain"][0] not in ("RemoteProtocolError", "ValueError")
    assert ("OSError" in found["bases"]) == is_os_error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "classes", "message"),
    [
        ("no model", ["OSError", "RepositoryNotFoundError"], "not a valid model identifier"),
        ("no dataset", ["DatasetNotFoundError"], "doesn't exist on the Hub"),
        ("no model revision", ["OSError", "RevisionNotFoundError"], "not a valid git identifier"),
        ("no dataset revision", ["DatasetNotFoundError"], "Revision 'v9' doesn't exist"),
    ],
)
def test_what_is_not_there(visit: Visit, call: str, classes: list[str], message: str) -> None:
    found = visit.results[call]
    assert found["chain"][: len(classes)] == classes
    assert message in found["message"]


@pytest.mark.slow
def test_fault_with_times_is_over_after_them(visit: Visit) -> None:
    """The newer huggingface_hub resumes by itself; the older ones need a second call."""
    assert visit.results["second"]["value"] == visit.results["local"]["value"]


@pytest.mark.slow
@pytest.mark.parametrize("offline", [False, True])
def test_cache_serves_when_the_hub_is_stopped(visit: Visit, offline: bool) -> None:
    """Without HF_HUB_OFFLINE only as fast as retries allow: 23 s a file in huggingface_hub 0.36."""
    variables = {**visit.variables, "HF_HUB_OFFLINE": str(int(offline))}
    again = run(AGAIN, [], variables, visit.cwd)
    assert again["logits"] == visit.results["alias"]["value"]
    assert again["tokens"] == visit.results["tokens"]["value"]
    assert again["rows"] == visit.results["rows"]["value"]
