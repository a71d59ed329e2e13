"""Trainers as sound scripts build them, each of another kind; small, and quick to learn."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import Trainer

from ftcheck.assets import model_dir
from tests.checks.cases import Build
from tests.checks.toys import TEXTS, lora, rows, tokenizer, trainer

__all__ = ["SOUND_TRAINERS"]

Row = dict[str, Any]
OTHERS = tuple(
    f"def add_{number}(x, y):\n    result = x * y - {number}\n    return result + {number} * 2\n"
    for number in range(100, 116)
)
"""Texts to evaluate on: of the same form, and not the same."""
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def pretrained() -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(model_dir()))


def adapted(**config: Any) -> Any:
    """The embedded model with an adapter."""
    return lora(pretrained(), **config)


def initial() -> Any:
    """The same, as `model_init` wants it: without an argument."""
    return adapted()


def sound(folder: Path, **given: Any) -> Any:
    """A trainer of the embedded model that learns; what is given takes the place of its parts."""
    arguments = {"learning_rate": 5e-3, "num_train_epochs": 6, **given.pop("arguments", {})}
    parts = {"evaluation": rows(OTHERS), **given}
    if "model_init" not in parts:
        parts.setdefault("model", adapted())
    return trainer(folder, arguments=arguments, **parts)


def of(**given: Any) -> Build:
    return lambda folder: sound(folder, **given)


def several_adapters(folder: Path) -> Any:
    from peft import LoraConfig

    model = adapted()
    model.add_adapter("second", LoraConfig(target_modules=["c_fc"], task_type="CAUSAL_LM"))
    model.set_adapter("default")
    return sound(folder, model=model)


def unpadded(texts: Sequence[str] = TEXTS) -> list[Row]:
    """Rows of their own lengths; every third has three texts in it."""
    longer = [text * 3 if number % 3 == 0 else text for number, text in enumerate(texts)]
    made = rows(longer, length=100)
    return [
        {name: values[: sum(row["attention_mask"])] for name, values in row.items()} for row in made
    ]


def padded(few: list[Mapping[str, Sequence[int]]]) -> Mapping[str, Any]:
    """A collator of one's own: pads on the left."""
    import torch

    longest = max(len(row["input_ids"]) for row in few)
    fill = {"input_ids": 2047, "attention_mask": 0, "labels": -100}
    return {
        name: torch.tensor([[value] * (longest - len(row[name])) + list(row[name]) for row in few])
        for name, value in fill.items()
    }


class OwnLoss(Trainer):  # type: ignore[misc] # transformers has no types for it
    """Cross-entropy by hand, divided as the library asks for."""

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        import torch

        labels = inputs["labels"]
        outputs = model(**{name: part for name, part in inputs.items() if name != "labels"})
        total = torch.nn.functional.cross_entropy(
            outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum"
        )
        count = (labels[:, 1:] != -100).sum() if num_items_in_batch is None else num_items_in_batch
        loss = total / count
        return (loss, outputs) if return_outputs else loss


def mixed_lengths(folder: Path) -> Any:
    from transformers import DataCollatorForSeq2Seq

    return sound(
        folder,
        train=unpadded(),
        evaluation=unpadded(OTHERS),
        data_collator=DataCollatorForSeq2Seq(tokenizer()),
    )


def chat(folder: Path) -> Any:
    """A template from a file; the answer is learned, and the question is not."""
    from transformers import DataCollatorForSeq2Seq

    file = folder / "chat_template.jinja"
    file.write_text(TEMPLATE, encoding="utf-8")
    words = tokenizer(chat_template=file.read_text(encoding="utf-8"))

    def said(number: int, text: str) -> Row:
        messages = [
            {"role": "user", "content": f"Write number {number}."},
            {"role": "assistant", "content": text},
        ]
        asked = words.apply_chat_template(
            messages[:1], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        ids = words.apply_chat_template(messages, tokenize=True, return_dict=False)
        assert ids[: len(asked)] == asked
        return {
            "input_ids": ids,
            "attention_mask": [1] * len(ids),
            "labels": [-100] * len(asked) + ids[len(asked) :],
        }

    return sound(
        folder,
        train=list(itertools.starmap(said, enumerate(TEXTS))),
        evaluation=list(itertools.starmap(said, enumerate(OTHERS))),
        data_collator=DataCollatorForSeq2Seq(words),
        processing_class=words,
    )


def blocks(texts: Sequence[str], length: int = 48) -> list[Row]:
    """Texts one after the other with EOS between them, cut into blocks."""
    words = tokenizer()
    joined = [token for text in texts for token in (*words(text)["input_ids"], words.eos_token_id)]
    pieces = [joined[n : n + length] for n in range(0, len(joined) - length + 1, length)]
    return [
        {"input_ids": ids, "attention_mask": [1] * length, "labels": list(ids)} for ids in pieces
    ]


def flattened(folder: Path) -> Any:
    """Rows of a batch in one, whose positions begin anew; each token sees its own row."""
    from transformers import DataCollatorWithFlattening

    def plain(texts: Sequence[str]) -> list[Row]:
        return [{"input_ids": row["input_ids"]} for row in unpadded(texts)]

    return sound(
        folder,
        train=plain(TEXTS),
        evaluation=plain(OTHERS),
        data_collator=DataCollatorWithFlattening(),
    )


def toy(kind: str) -> Build:
    """A model of another architecture, with random weights; all of it is trained."""

    def build(folder: Path) -> Any:
        import torch
        import transformers

        sizes = {
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
            "vocab_size": 2048,
            "bos_token_id": 2047,
            "eos_token_id": 2047,
            "pad_token_id": 2047,
        }
        if kind == "OPT":
            sizes |= {"ffn_dim": 128, "word_embed_proj_dim": 64}
        else:
            sizes |= {"intermediate_size": 128, "num_key_value_heads": 2}
        config = getattr(transformers, f"{kind}Config")(**sizes)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = getattr(transformers, f"{kind}ForCausalLM")(config)
        return sound(folder, model=model)

    return build


def own_pad(folder: Path) -> Any:
    from transformers import DataCollatorForSeq2Seq

    words = tokenizer()
    words.add_special_tokens({"pad_token": "<pad>"})
    model = pretrained()
    model.resize_token_embeddings(len(words))
    return sound(
        folder,
        model=lora(model),
        train=unpadded(),
        evaluation=unpadded(OTHERS),
        data_collator=DataCollatorForSeq2Seq(words),
        processing_class=words,
    )


def streaming(folder: Path) -> Any:
    from datasets import Dataset

    stream = Dataset.from_list(rows()).to_iterable_dataset()
    return sound(folder, train=stream, arguments={"max_steps": 18})


SOUND_TRAINERS: Mapping[str, Build] = {
    "an adapter": of(),
    "several adapters on one model": several_adapters,
    "a collator of one's own": lambda folder: sound(
        folder, train=unpadded(), evaluation=unpadded(OTHERS), data_collator=padded
    ),
    "a loss of one's own": of(kind=OwnLoss),
    "batches of mixed lengths": mixed_lengths,
    "a chat template": chat,
    "packed": lambda folder: sound(folder, train=blocks(TEXTS), evaluation=blocks(OTHERS)),
    "packed, rows apart": flattened,
    "OPT": toy("OPT"),
    "Llama": toy("Llama"),
    "Qwen": toy("Qwen2"),
    "accumulation 16": lambda folder: sound(
        folder,
        arguments={
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 16,
            "num_train_epochs": 10,
        },
    ),
    "bf16": of(arguments={"bf16": True}),
    "modules_to_save": lambda folder: sound(folder, model=adapted(modules_to_save=["ln_f"])),
    "own pad token, embedding resized": own_pad,
    "streaming": streaming,
    "model_init": of(model_init=initial),
}
"""What a sound script does, to how it makes its trainer."""
