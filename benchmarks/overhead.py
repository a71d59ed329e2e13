"""What `ftcheck run` adds to the plain script that it stands for.

    python -m benchmarks.overhead [--steps 10] [--rounds 3] [--work DIR]

The published recipe at full size (8 bits, 1 × 128, accumulation 4), as plain code and by ftcheck,
in turn, each in a process of its own. Two figures: the training itself, pair by pair; and the
seconds that ftcheck spends outside it on what the script does not do (text and probe before,
comparison after the reload, the summary), beside the 250 steps of the recipe.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.workload import reference, text_file
from ftcheck.recipe import dump_recipe

REFERENCE_STEPS = 250

PLAIN = """
import json, sys, time
from datasets import load_dataset
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import (AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, Trainer,
                          TrainingArguments, set_seed)
import torch

model_path, text, out, steps = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
tokenizer = AutoTokenizer.from_pretrained(model_path)
tokenizer.pad_token = tokenizer.eos_token
dataset = load_dataset("text", data_files=text, split="train").shuffle(seed=42).select(range(1000))

def tokenize(rows):
    tokens = tokenizer(rows["text"], truncation=True, padding="max_length", max_length=128)
    tokens["labels"] = tokens["input_ids"].copy()
    return tokens

dataset = dataset.map(tokenize, batched=True, remove_columns=["text"])
quantization = BitsAndBytesConfig(load_in_8bit=True)

def base():
    return AutoModelForCausalLM.from_pretrained(
        model_path, quantization_config=quantization, device_map={"": "cpu"}, dtype=torch.float32)

model = prepare_model_for_kbit_training(base(), use_gradient_checkpointing=False)
set_seed(42)
model = get_peft_model(model, LoraConfig(
    r=8, lora_alpha=16, lora_dropout=0.05, bias="none", target_modules=["c_attn", "c_proj"],
    task_type="CAUSAL_LM"))
arguments = TrainingArguments(
    output_dir=out + "/checkpoints", per_device_train_batch_size=1, gradient_accumulation_steps=4,
    max_steps=steps, fp16=True, label_names=["labels"], logging_steps=10, report_to="none",
    use_cpu=True, disable_tqdm=True)
trainer = Trainer(model=model, args=arguments, train_dataset=dataset)
begun = time.perf_counter()
trainer.train()
seconds = time.perf_counter() - begun
model.save_pretrained(out + "/adapter")
del model, trainer
model = PeftModel.from_pretrained(base(), out + "/adapter").eval()
inputs = tokenizer("The history of", return_tensors="pt").to("cpu")
ids = model.generate(**inputs, max_new_tokens=50, pad_token_id=tokenizer.eos_token_id)
print(tokenizer.decode(ids[0]))
json.dump({"training": seconds}, open(out + "/seconds.json", "w"))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """Wall seconds of one process: of the training, and of the whole."""

    training: float
    whole: float


def plain(folder: Path, recipe_file: Path, text: Path, steps: int) -> Seconds:
    """The plain script."""
    del recipe_file
    with tempfile.TemporaryDirectory(dir=folder) as out:
        whole = timed([sys.executable, "-c", PLAIN, folder / "gpt2", text, out, steps])
        training = json.loads((Path(out) / "seconds.json").read_text(encoding="utf-8"))["training"]
    return Seconds(training=training, whole=whole)


def by_ftcheck(folder: Path, recipe_file: Path, text: Path, steps: int) -> Seconds:
    """The same by `ftcheck run`."""
    del text, steps
    with tempfile.TemporaryDirectory(dir=folder) as parent:
        out = Path(parent) / "run"
        whole = timed([sys.executable, "-m", "ftcheck", "run", recipe_file, "--output-dir", out])
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return Seconds(training=summary["training"]["seconds"], whole=whole)


def timed(command: Sequence[object]) -> float:
    """Wall seconds of a command that must succeed."""
    begun = time.perf_counter()
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    return time.perf_counter() - begun


def main(arguments: Sequence[str] | None = None) -> None:
    """Print each pair, then the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="folder for the model [default: a temporary one]")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        text = text_file(folder, None)
        recipe = reference(folder, text, "data.rows=1000", f"training.max_steps={options.steps}")
        file = folder / "timed.toml"
        file.write_text(dump_recipe(recipe), encoding="utf-8")
        ratios, added = [], []
        heads = ("round", "script s", "ftcheck s", "ratio", "outside +s")
        print("".join(f"{head:>12}" for head in heads))
        for number in range(1, options.rounds + 1):
            script = plain(folder, file, text, options.steps)
            ours = by_ftcheck(folder, file, text, options.steps)
            ratios.append(ours.training / script.training)
            added.append((ours.whole - ours.training) - (script.whole - script.training))
            figures = (script.training, ours.training, ratios[-1], added[-1])
            print(f"{number:>12}" + "".join(f"{figure:>12.3f}" for figure in figures), flush=True)
        step = script.training / options.steps
        outside = statistics.median(added) / (REFERENCE_STEPS * step)
        print(
            f"median ratio of the training {statistics.median(ratios):.3f}; what ftcheck does "
            f"besides is {outside:+.1%} of the recipe's {REFERENCE_STEPS} steps"
        )


if __name__ == "__main__":
    main()
