"""Makes the tiny model again from the text stored in this package.

    python -m ftcheck.assets.build [--output DIR] [--steps N] [--check]

It takes some minutes on one thread. The tokenizer comes out the same anywhere with the same
`tokenizers` version; the weights are the same to the bit only on the same kind of processor with
the same torch, so elsewhere `--check` shows the held-out losses of both models to compare.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ftcheck.assets import model_dir, text_dir
from ftcheck.assets.manifest import differing, read_manifest, sha256, versions, write_manifest
from ftcheck.assets.pretrain import STEPS, make_model

DEFAULT_OUTPUT = Path("tiny-gpt2-rebuilt")


def say(line: str) -> None:
    """Prints a line at once, so that the progress shows when the output is a pipe."""
    print(line, flush=True)


def build_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = argparse.ArgumentParser(
        prog="python -m ftcheck.assets.build",
        description="Makes the tiny model again from the text stored in the package.",
    )
    parser.add_argument(
        "--output", type=Path, default=DEFAULT_OUTPUT, help="new folder (default: %(default)s)"
    )
    parser.add_argument(
        "--steps", type=int, default=STEPS, help="optimizer steps (default: %(default)s)"
    )
    parser.add_argument(
        "--check", action="store_true", help="compare with the stored model; exit 1 if they differ"
    )
    parser.add_argument("--force", action="store_true", help="write into a folder that is there")
    parser.add_argument(
        "--write-manifest",
        action="store_true",
        help="note the new model in the package's MANIFEST.json (for maintainers)",
    )
    return parser


def check_texts() -> None:
    """Stops where the stored texts are not those that the manifest tells of."""
    changed = differing(read_manifest()["files"][text_dir().name], text_dir())
    if changed:
        sys.exit(f"these texts do not match MANIFEST.json: {', '.join(changed)}")


def compare(folder: Path, losses: dict[str, float]) -> bool:
    """Says whether a model that was just made equals the stored one.

    Args:
        folder: The new model.
        losses: Its held-out losses by kind of text.

    Returns:
        True where all files are equal to the bit.
    """
    manifest = read_manifest()
    changed = differing(manifest["files"][model_dir().name], folder)
    if not changed:
        say("equal to the stored model, bit for bit")
        return True
    say(f"not bit-equal to the stored model: {', '.join(changed)}")
    for kind, loss in losses.items():
        stored = manifest["held_out_loss"][kind]
        say(f"held-out loss on {kind}: {loss:.4f} here, {stored:.4f} stored")
    here = versions()
    for name, then in manifest["versions"].items():
        if here.get(name) != then:
            say(f"{name}: {here.get(name)} here, {then} for the stored model")
    return False


def main(arguments: list[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: The command line without the program's name; None takes the process's own.

    Returns:
        The exit status: 1 where `--check` found a difference.
    """
    parser = build_parser()
    options = parser.parse_args(arguments)
    output: Path = options.output
    if options.steps < 1:
        parser.error("--steps must be at least 1")
    if output.exists() and not options.force:
        parser.error(f"{output} is there already; name a new folder or give --force")
    if not options.write_manifest:
        check_texts()
    output.mkdir(parents=True, exist_ok=True)
    losses = make_model(output, options.steps, say)
    for kind, loss in losses.items():
        say(f"held-out loss on {kind}: {loss:.4f}")
    say(f"sha256 of model.safetensors: {sha256(output / 'model.safetensors')}")
    if options.write_manifest:
        write_manifest(output, losses, options.steps)
    return 0 if not options.check or compare(output, losses) else 1


if __name__ == "__main__":
    sys.exit(main())
