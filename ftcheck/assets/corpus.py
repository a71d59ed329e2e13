"""Makes the two texts stored in this package from a CPython 3.11 standard library.

The prose (documentation topics, docstrings, comments), with a few functions, pretrains the tiny
model; other functions fine-tune it. The files are stored in the package because the library's text
differs from one Python version to the next, so this module is only needed to make new ones:

    python3.11 -m ftcheck.assets.corpus --output NEW_FOLDER
"""

from __future__ import annotations

import argparse
import ast
import gzip
import io
import json
import random
import re
import sysconfig
import textwrap
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ftcheck.assets import END_OF_TEXT
from ftcheck.assets.tokenizer import train_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SEED = 20
MIN_WORDS = 7
TRAIN_ROWS = 1000
EVAL_ROWS = 120
# A few functions join the prose in the pretraining text, so that the tokens which only code has are
# not left at their random start: LoRA on the projections cannot move the embeddings.
TASTE_ROWS = 50
MIN_CHARS, MAX_CHARS = 90, 420
# Narrower than the promised 24..127 tokens: the stored tokenizer sees only the rows that are kept
# here, so a row comes out up to an eighth longer there than under this draft tokenizer.
MIN_TOKENS, MAX_TOKENS = 26, 108

# Held-out rows come from whole modules that give no training rows and no prose.
# fmt: off
EVAL_MODULES = frozenset((
    "ast", "cmd", "configparser", "contextlib", "datetime", "fractions", "mailbox", "pathlib",
    "queue", "shelve", "shlex", "statistics", "tempfile", "zipfile",
))
# fmt: on
# Parts of the library that carry, or are listed in LICENSE.txt as carrying, a third party's
# notice, that are also published elsewhere under other terms, that are generated, or that are not
# library code. Any file which speaks of a copyright or a licence is left out too.
# fmt: off
SKIPPED = frozenset((
    "__phello__", "_pydecimal", "antigravity", "argparse", "asynchat", "asyncore", "ctypes",
    "curses", "decimal", "distutils", "encodings", "ensurepip", "idlelib", "json", "lib2to3",
    "metadata", "pydoc_data", "re", "resources", "site-packages", "smtpd", "sqlite3",
    "sre_compile", "sre_constants", "sre_parse", "this", "tomllib", "trace",
    "turtle", "turtledemo", "unittest", "uu", "xdrlib", "xmlrpc", "zoneinfo",
))
# fmt: on
# Their comments and docstrings are prose as good as any, but their functions are all alike.
TESTS = frozenset(("test", "tests"))
NOTICE = re.compile(r"copyright|licen[sc]e|\(c\) *\d{4}|all rights reserved", re.IGNORECASE)
PERSONAL = re.compile(r"\S@\S+\.\S|https?://|\b(author|written by|contributed by)\b", re.IGNORECASE)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def clean_sources(library: Path) -> dict[str, str]:
    """Reads the library's modules that hold no third party's notice.

    Args:
        library: The folder of the standard library.

    Returns:
        Source text by path relative to `library`, in sorted order.
    """
    sources: dict[str, str] = {}
    for path in sorted(library.rglob("*.py")):
        relative = path.relative_to(library)
        parts = [part.removesuffix(".py") for part in relative.parts]
        if SKIPPED.intersection(parts) or parts[0].startswith("_sysconfigdata"):
            continue
        text = path.read_bytes().decode("utf-8", errors="replace")
        # The tests hold files that are broken on purpose.
        if not NOTICE.search(text) and parses(text):
            sources[relative.as_posix()] = text
    return sources


def is_held_out(relative: str) -> bool:
    """Whether a module is one of those kept for held-out rows."""
    return Path(relative).parts[0].removesuffix(".py") in EVAL_MODULES


def as_prose(block: str) -> str | None:
    """One paragraph on one line, or None where the block is not prose (code, tables, names)."""
    text = " ".join(block.split())
    if (
        len(text.split()) < MIN_WORDS
        or not re.match(r"[A-Z*\"'(`]", text)
        or text[-1] not in ".:!?)"
    ):
        return None
    letters = sum(char.isalpha() or char in " ,." for char in text)
    if (
        letters < 0.87 * len(text)
        or PERSONAL.search(text)
        or re.search(r">>>|\w\(self|==|::=", text)
    ):
        return None
    return re.sub(r":{1,2}$", ":", text)


def paragraphs(text: str) -> list[str]:
    """The prose paragraphs of a documentation text, each on one line."""
    blocks = re.split(r"\n[ \t]*\n", text)
    return [prose for prose in map(as_prose, blocks) if prose]


def documentation() -> list[str]:
    """The topics of the language reference that `help()` shows, prose only."""
    from pydoc_data.topics import topics

    return ["\n\n".join(paragraphs(topics[name])) for name in sorted(topics)]


def comment_blocks(source: str) -> Iterator[str]:
    """The comments of a module; those on consecutive lines count as one."""
    lines: list[str] = []
    last = -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or token.line.lstrip()[0] != "#":
            continue
        if token.start[0] != last + 1 and lines:
            yield "\n".join(lines)
            lines = []
        lines.append(token.string.lstrip("#"))
        last = token.start[0]
    yield "\n".join(lines)


def module_prose(source: str) -> list[str]:
    """The prose of one module: a document per docstring and per block of comments."""
    texts = [
        ast.get_docstring(node) or ""
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.Module, ast.ClassDef, *FUNCTIONS))
    ]
    return ["\n\n".join(paragraphs(text)) for text in (*texts, *comment_blocks(source))]


def functions(source: str) -> Iterator[str]:
    """The functions and methods of a module, dedented, without docstrings and blank lines.

    Docstrings are prose, which the fine-tuning is to lead away from, so they are cut out.
    """
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, FUNCTIONS) or node.end_lineno is None:
            continue
        first = min([node.lineno, *(item.lineno for item in node.decorator_list)])
        kept = list(range(first, node.end_lineno + 1))
        if ast.get_docstring(node) is not None:
            if len(node.body) == 1:
                continue
            cut = node.body[0]
            kept = [n for n in kept if not cut.lineno <= n <= (cut.end_lineno or cut.lineno)]
        text = "\n".join(lines[n - 1].rstrip() for n in kept if lines[n - 1].strip())
        text = textwrap.dedent(text.expandtabs(8)) + "\n"
        if MIN_CHARS <= len(text) <= MAX_CHARS and text.isascii() and parses(text):
            yield text


def parses(text: str) -> bool:
    """Whether a text is Python on its own (a row might not be any more after the cutting)."""
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True


def function_rows(sources: dict[str, str]) -> tuple[list[str], list[str]]:
    """The functions for training and the held-out ones, without duplicates within or between."""
    seen: set[str] = set()
    train: list[str] = []
    held_out: list[str] = []
    # Held-out modules first, so that a function found in both kinds is held out only.
    for relative in sorted(sources, key=lambda name: (not is_held_out(name), name)):
        for text in functions(sources[relative]):
            # The body decides: the same body under another name would leak as well.
            key = re.sub(r"\s+", " ", text.partition("(")[2])
            if key not in seen:
                seen.add(key)
                (held_out if is_held_out(relative) else train).append(text)
    return train, held_out


def prose_documents(sources: dict[str, str]) -> list[str]:
    """The prose documents, without a paragraph that an earlier one has."""
    documents = documentation()
    for relative, text in sources.items():
        if not is_held_out(relative):
            documents += module_prose(text)
    seen: set[str] = set()
    unique: list[str] = []
    for document in documents:
        fresh = [part for part in document.split("\n\n") if part and part not in seen]
        seen.update(fresh)
        if fresh:
            unique.append("\n\n".join(fresh) + "\n")
    return unique


def of_fitting_length(rows: list[str], tokenizer: Tokenizer) -> list[str]:
    """The rows that are neither too short nor too long in tokens."""
    return [row for row in rows if MIN_TOKENS <= len(tokenizer.encode(row).ids) <= MAX_TOKENS]


def write_jsonl(path: Path, rows: list[str]) -> None:
    """Writes rows as JSON lines with the one key `text`."""
    lines = [json.dumps({"text": row}, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def write_gzip(path: Path, text: str) -> None:
    """Writes a packed text; without a time in the header, equal text gives equal bytes."""
    path.write_bytes(gzip.compress(text.encode("utf-8"), compresslevel=9, mtime=0))


def write_texts(output: Path, library: Path) -> dict[str, int]:
    """Writes the pretraining text, both row files and the licence.

    Args:
        output: The folder to write into; it is made where missing.
        library: The folder of the standard library.

    Returns:
        Counts of what was written and of what was there to choose from.
    """
    sources = clean_sources(library)
    prose = prose_documents(sources)
    train, held_out = function_rows(
        {name: text for name, text in sources.items() if not TESTS.intersection(name.split("/"))}
    )
    draft = train_tokenizer([*prose, *train])
    train, held_out = (of_fitting_length(rows, draft) for rows in (train, held_out))
    chooser = random.Random(SEED)
    train_rows = chooser.sample(train, TRAIN_ROWS)
    eval_rows = chooser.sample(held_out, EVAL_ROWS)
    taste_rows = chooser.sample(sorted(set(train) - set(train_rows)), TASTE_ROWS)
    output.mkdir(parents=True, exist_ok=True)
    write_jsonl(output / "finetune-train.jsonl", train_rows)
    write_jsonl(output / "finetune-eval.jsonl", eval_rows)
    write_gzip(output / "pretrain.txt.gz", END_OF_TEXT.join([*prose, *taste_rows]))
    licence = (library / "LICENSE.txt").read_text(encoding="utf-8")
    (output / "LICENSE-PSF.txt").write_text(licence, encoding="utf-8", newline="\n")
    return {
        "prose_documents": len(prose),
        "prose_chars": sum(map(len, prose)),
        "modules": len(sources),
        "train_pool": len(train),
        "eval_pool": len(held_out),
    }


def main() -> None:
    """Writes new texts into a folder given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m ftcheck.assets.corpus")
    parser.add_argument("--output", type=Path, required=True, help="folder for the new texts")
    options = parser.parse_args()
    library = Path(sysconfig.get_path("stdlib"))
    for name, count in write_texts(options.output, library).items():
        print(f"{name}: {count}")


if __name__ == "__main__":
    main()
