"""Recipes that checks of steps, of loading again and of memory catch; and what none can trip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.checks.recipe_tables import (
    ANSWERS,
    BEST,
    FULL,
    TEXTS,
    ask,
    code,
    coded,
    files,
    folder,
    own_file,
    training,
)
from tests.checks.recipes import Case, Changes
from tests.helpers.model_folders import other_tokenizer, other_weights

__all__ = ["NOT_BY_RECIPE", "REFUSED", "STEPS_AND_LATER", "WIDE"]

_BEGIN = "def forward(self, input_ids=None, attention_mask=None, labels=None, **more):"
_REST = "attention_mask=attention_mask, labels=labels, **more"


def forward(before: str = "", ids: str = "input_ids", after: str = "") -> str:
    """A `forward` that does something before it calls GPT-2's, and something after it."""
    lines = [
        _BEGIN,
        *(f"    {line}" for line in before.splitlines()),
        f"    made = super().forward({ids}, {_REST})",
        *(f"    {line}" for line in after.splitlines()),
        "    return made",
    ]
    return "\n".join(lines)


def hooked(result: str) -> str:
    """A block whose result goes through something else."""
    return f"""
def __init__(self, config):
    super().__init__(config)
    self.transformer.h[1].register_forward_hook(self.changed)

@staticmethod
def changed(module, given, made):
    return {result}
"""


MIXED = "embedded + embedded.mean(0, keepdim=True)"
EMBEDDED = "embedded = self.transformer.wte(input_ids)"
LOSS = "if made.loss is not None:\n    made.loss = "
COUNTS = """
def __init__(self, config):
    super().__init__(config)
    self.steps = 0

""" + forward(
    "self.steps += int(self.training)", after="made.logits = made.logits * (1 + self.steps / 100)"
)
"""A model that has learned something which is no weight."""


def permuted(place: Path) -> None:
    """A tokenizer whose tokens have other numbers than those that the model has learned."""

    def change(held: dict[str, Any]) -> None:
        vocab = held["model"]["vocab"]
        held["model"]["vocab"] = {
            token: number if number == 2047 else (number * 811 + 13) % 2047
            for token, number in vocab.items()
        }

    other_tokenizer(place / "others", change)
    other_tokenizer(place / "its_own", lambda _: None)


def with_cross_attention(place: Path) -> None:
    """The decoder of a pair: attention to an encoder that is not there."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    from ftcheck.assets import model_dir

    config = GPT2Config.from_pretrained(str(model_dir()), add_cross_attention=True)
    GPT2LMHeadModel(config).save_pretrained(place / "decoder")
    AutoTokenizer.from_pretrained(str(model_dir())).save_pretrained(place / "decoder")


def infinite(place: Path) -> None:
    def broken(model: Any) -> None:
        model.transformer.ln_f.weight.data[3] = float("inf")

    other_weights(place / "broken", broken)


def roles(place: Path) -> None:
    """A tokenizer with a token that the stored embedding has no row for, and rows that use it."""
    from transformers import AutoTokenizer

    other_weights(place / "roles", lambda _: None)
    tokens = AutoTokenizer.from_pretrained(str(place / "roles"))
    tokens.add_tokens(["<|user|>"], special_tokens=True)
    tokens.save_pretrained(place / "roles")
    files(own=["<|user|>" + text for text in TEXTS[:24]], plain=TEXTS[:24])(place)


SHORT = files(short=[f"a{number}" for number in range(10, 90)])
EVALUATED = ("lora.lora_dropout = 0.1",)

WIDE = (
    "training.per_device_train_batch_size = 128",
    "tokenization.max_length = 256",
    'tokenization.padding = "max_length"',
    "data.rows = 256",
)

STEPS_AND_LATER: dict[str, Case] = {
    "FT219": Case(
        wrong=folder("others"), at="model.name_or_path", near=(folder("its_own"),), files=permuted
    ),
    "FT405": Case(
        wrong=training("max_steps = 20", "warmup_steps = 11"),
        at="training.warmup_steps",
        near=(training("max_steps = 20", "warmup_steps = 9"),),
        severity="warning",
    ),
    "FT406": Case(
        wrong=training("gradient_accumulation_steps = 17"),
        at="training.gradient_accumulation_steps",
        near=(training("gradient_accumulation_steps = 16"),),
        severity="warning",
    ),
    "FT407": Case(
        wrong=own_file("short.jsonl", "- model.loss_type", "tokenization.append_eos = false"),
        at="model",
        near=(own_file("short.jsonl", "tokenization.append_eos = false"),),
        files=SHORT,
    ),
    "FT409": Case(
        wrong=training("label_smoothing_factor = 0.99", "learning_rate = 1e-3"),
        at="training.label_smoothing_factor",
        near=(training("label_smoothing_factor = 0.1", "learning_rate = 1e-3"),),
    ),
    "FT410": Case(
        wrong=folder("decoder", 'lora.target_modules = ["c_attn"]'),
        at="lora",
        near=(folder("decoder", 'lora.target_modules = ["attn.c_attn"]'),),
        files=with_cross_attention,
    ),
    "FT411": Case(
        wrong=code("mixing"),
        at="model",
        near=(code("apart"),),
        files=coded(
            mixing=forward(f"{EMBEDDED}\nmore['inputs_embeds'] = {MIXED}", "None"),
            apart=forward(f"{EMBEDDED}\nmore['inputs_embeds'] = embedded", "None"),
        ),
    ),
    "FT412": Case(
        wrong=("- model.loss_type", "tokenization.max_length = 16"),
        at="model",
        near=(("tokenization.max_length = 16",),),
        severity="note",
    ),
    "FT413": Case(
        wrong=code("quiet", *EVALUATED),
        at="training",
        near=(code("usual", *EVALUATED),),
        severity="warning",
        files=coded(quiet=forward("self.transformer.eval()"), usual=forward()),
    ),
    "FT414": Case(
        wrong=code("loud", *EVALUATED),
        at="training",
        near=(code("plain", *EVALUATED),),
        severity="warning",
        files=coded(loud=forward("self.transformer.train()"), plain=forward()),
    ),
    "FT416": Case(
        wrong=code("clocked"),
        at="training",
        near=(code("seeded"),),
        severity="warning",
        also=("FT407",),
        files=coded(
            clocked=forward(after=LOSS + "made.loss * (1 + time.monotonic_ns() % 997)"),
            seeded=forward(after=LOSS + "made.loss * (1 + random.random())"),
        ),
    ),
    "FT419": Case(
        wrong=(*BEST, 'training.metric_for_best_model = "accuracy"'),
        at="training.metric_for_best_model",
        near=((*BEST, 'training.metric_for_best_model = "loss"'),),
    ),
    "FT420": Case(
        wrong=(*FULL, "training.learning_rate = 0.05"),
        at="training.learning_rate",
        near=((*FULL, "training.learning_rate = 0.005"),),
    ),
    "FT421": Case(
        wrong=training('label_names = ["targets"]'),
        at="training.label_names",
        near=(training('label_names = ["labels"]'),),
    ),
    "FT423": Case(
        wrong=(*FULL, 'model.dtype = "bfloat16"', "training.learning_rate = 1e-6"),
        at="training.learning_rate",
        near=(
            (*FULL, 'model.dtype = "bfloat16"', "training.learning_rate = 1e-2"),
            (*FULL, "training.learning_rate = 1e-6"),
        ),
        severity="warning",
    ),
    "FT424": Case(
        wrong=folder("broken"),
        at="data",
        near=(folder("ftcheck:tiny-gpt2"),),
        files=infinite,
        also=("FT415", "FT421"),
    ),
    "FT425": Case(
        wrong=code("moving"),
        at="training",
        near=(code("still"),),
        files=coded(
            moving=forward("self.transformer.ln_f.weight.data += 0.1 * self.training"),
            still=forward("self.transformer.ln_f.weight.data += 0.0"),
        ),
    ),
    "FT426": Case(wrong=("data.rows = 1001",), at="data.rows", near=(("data.rows = 1000",),)),
    "FT505": Case(
        wrong=("quantization.load_in_4bit = true",),
        at="quantization",
        near=(("quantization.load_in_8bit = true",),),
        severity="note",
    ),
    "FT601": Case(
        wrong=code("misplaced"),
        at="model",
        near=(code("placed"),),
        files=coded(
            misplaced=forward(
                f"{EMBEDDED}\nmore['inputs_embeds'] = embedded + torch.zeros(128)", "None"
            ),
            placed=forward(
                f"{EMBEDDED}\nmore['inputs_embeds'] = "
                "embedded + torch.zeros(128).to(embedded.device)",
                "None",
            ),
        ),
    ),
    "FT701": Case(
        wrong=(*WIDE, 'budget.vram = "1 GiB"'),
        at="budget",
        near=((*WIDE, 'budget.vram = "24 GiB"'),),
    ),
    "FT802": Case(
        wrong=code("counting", *FULL),
        at="model",
        near=(code("kept", *FULL), ('lora.init_lora_weights = "pissa"',)),
        files=coded(counting=COUNTS, kept=forward()),
    ),
    "FT807": Case(
        wrong=(*folder("roles"), *own_file("own.jsonl")),
        at="lora",
        near=(
            (*folder("roles"), *own_file("own.jsonl"), 'lora.modules_to_save = ["wte"]'),
            (*folder("roles"), *own_file("own.jsonl"), "lora.trainable_token_indices = [2048]"),
        ),
        files=roles,
    ),
    "FT904": Case(
        wrong=("generation.use_cache = false",),
        at="generation.use_cache",
        near=(("generation.use_cache = true",), ()),
        severity="note",
    ),
    "FT905": Case(
        wrong=("generation.max_new_tokens = 256",),
        at="generation.prompts",
        near=(("generation.max_new_tokens = 255",),),
    ),
    "FT906": Case(
        wrong=ask("own.jsonl", 'generation.prompts = ["Q: 3 + 4?"]'),
        at="generation.prompts",
        near=(ask("own.jsonl", 'generation.prompts = ["### Question: 3 + 4?"]'),),
        severity="warning",
        files=files(own=ANSWERS),
    ),
}
"""Checks of the later levels, by code."""

NOT_BY_RECIPE: dict[str, str] = {
    "FT104": "rows are shuffled by data.shuffle_seed, or not at all",
    "FT106": "the rows that are cached go by the source of what makes them",
    "FT202": "labels are a copy of the row's own tokens",
    "FT203": "pads alone are masked, and rows of fewer than two tokens are left out",
    "FT204": "labels are a copy of the tokens in their places",
    "FT205": "labels are a copy of the tokens, which tokenizers refuse to pad where they are no "
    "integers",
    "FT206": "the collators of a recipe pad labels and leave them as they are",
    "FT207": "pads alone are masked",
    "FT209": "pads are masked by the attention mask, which shows the EOS of a row",
    "FT307": "peft freezes what is not the adapter's own when a recipe is wrapped",
    "FT308": "a folder that holds an adapter is refused as a base",
    "FT312": "the adapter of a recipe is the one that is active",
    "FT314": "training.seed is set before the adapter is drawn",
    "FT401": "Trainer makes the optimizer from the model that it trains",
    "FT402": "Trainer gives the optimizer what is trained, and nothing else",
    "FT408": "the loss of a recipe is that of its model: only a Trainer of one's own has another",
    "FT418": "a recipe has no compute_metrics",
    "FT429": "Trainer clears the gradients after each step",
    "FT504": "a quantized base is prepared before it is wrapped",
    "FT602": "a base is loaded onto one device whole",
    "FT603": "how many cards there are is the machine's affair; a recipe is looked at on the CPU",
    "FT604": "a quantized base stays where it was loaded",
    "FT801": "what was trained is saved",
    "FT803": "it is saved after training",
    "FT804": "it is saved with its adapter",
    "FT805": "an adapter is loaded on the base that the recipe names",
    "FT806": "the tokenizer is saved beside it",
    "FT808": "an adapter is loaded by peft",
    "FT901": "text is generated in evaluation mode",
    "FT902": "prompts are padded on the left",
    "FT903": "prompts come with their attention mask",
}
"""Checks that no recipe can trip, and what keeps it from that."""

REFUSED: dict[str, tuple[Changes, str, str]] = {
    "FT427": (training("warmup_ratio = 1.0"), "training.warmup_ratio", "use a share below 1"),
    "FT501": (
        ("- lora", "training.fp16 = true", 'model.dtype = "float16"'),
        "training.fp16",
        "needs trainable weights in float32",
    ),
    "FT406": (training("max_steps = 0"), "training.max_steps", "got 0, expected 1 or more"),
    "FT504": (
        ("- lora", "quantization.load_in_8bit = true"),
        "quantization",
        "quantized weights cannot be trained",
    ),
    "FT419": (
        ("- data.eval_split", "- data.eval_rows", *BEST),
        "training.eval_strategy",
        "names no rows to evaluate on",
    ),
    "FT305": (("lora.lora_dropout = 1.0",), "lora.lora_dropout", "a number below 1"),
    "FT403": (training("learning_rate = -1e-4"), "training.learning_rate", "expected 0 or more"),
}
"""What is refused when a recipe is read, before any check: by the check that is about it."""
