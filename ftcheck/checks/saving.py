"""FT8xx: saving and loading."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ftcheck.checks.explained import explained
from ftcheck.checks.finding import Finding, Level, NotApplicable, NotMeasured, Severity
from ftcheck.checks.registry import Check, check
from ftcheck.checks.seen import Seen

__all__: list[str] = []

_CLOSE: Final = 1e-3
_CLOSE_HALF: Final = 2e-2


@check("FT801", "nothing-saved", Level.ROUNDTRIP, Severity.WARNING)
def nothing_saved(self: Check, seen: Seen) -> Iterator[Finding]:
    """The script trains and saves nothing, or the tokenizer alone.

    Bad: `save_strategy="no"` and no `save_model` behind `train()`.

    Good: `trainer.save_model("adapter")`
    """
    record = seen.followed()
    setup = seen.need("setup")
    saved = {call.facts.get("kind") for call in record.of("save")} - {"tokenizer"}
    if saved or record.of("merge"):
        return
    if str(setup.arguments.get("save_strategy")) == "no":
        yield self.finding(
            "the script trains, and saves nothing",
            key="training.save_strategy",
            fix="Call trainer.save_model(folder) after training.",
        )


@check("FT802", "reload-differs", Level.ROUNDTRIP, Severity.ERROR)
def differs(self: Check, seen: Seen) -> Iterator[Finding]:
    """What is loaded again computes something else than what was trained.

    Measured: logits after three steps, before saving and after loading. 0.1 % of the largest logit
    passes, 2 % in half precision.

    Bad: trained parts that are not in `modules_to_save`.

    Good: the same logits.
    """
    reload = seen.need("reload")
    key = "lora" if seen.need("setup").adapters else "model"
    failure = reload.failure
    if failure is not None and failure.during == "computing logits":
        raise NotMeasured(f"{failure.kind}: {failure.text.splitlines()[0]}")
    if failure is not None:
        what = "saving" if failure.during == "saving" else "loading what was saved"
        yield self.finding(
            f"{what} fails: {failure.kind}: {failure.text.splitlines()[0]}",
            evidence=list(reload.files),
            key=key,
            fix=explained(failure)
            or "Save with trainer.save_model, and load with the class that was trained.",
        )
        return
    if reload.difference is None:
        raise NotMeasured(
            "there was no batch of tokens to compare on, or the base that it goes on is not at hand"
        )
    half = any(one.dtype in ("float16", "bfloat16") for one in seen.need("setup").parameters)
    allowed = reload.scale * (_CLOSE_HALF if half else _CLOSE)
    if not reload.difference <= allowed:
        yield self.finding(
            f"logits after loading are off by {reload.difference:.3g} (at most {allowed:.3g} would "
            "pass)",
            evidence=[*reload.files, f"training moved them by {reload.adapter_effect or 0:.3g}"],
            key=key,
            fix="Name every part that is trained in modules_to_save.",
        )


@check("FT803", "saved-before-training", Level.ROUNDTRIP, Severity.ERROR)
def before(self: Check, seen: Seen) -> Iterator[Finding]:
    """The model is saved before it is trained, and not afterwards.

    Bad: `model.save_pretrained("adapter")` above `trainer.train()`.

    Good: below it.
    """
    record = seen.followed()
    saved = [call for call in record.of("save") if call.facts.get("kind") != "tokenizer"]
    early = [call for call in saved if call.when == "before"]
    if early and len(early) == len(saved):
        yield self.finding(
            "the model is saved before training, and never again",
            place=early[0].place,
            key="training",
            fix="Save after trainer.train().",
        )


@check("FT804", "base-saved-instead", Level.ROUNDTRIP, Severity.ERROR)
def base_saved(self: Check, seen: Seen) -> Iterator[Finding]:
    """The base is saved, without the adapter that was trained.

    Bad: `model.base_model.model.save_pretrained(folder)`; `model.unload().save_pretrained(folder)`

    Good: `model.save_pretrained(folder)`, or `model.merge_and_unload()` before it.
    """
    record = seen.followed()
    if not seen.need("setup").adapters:
        raise NotApplicable("the model has no adapter")
    saved = [
        call
        for call in record.of("save")
        if call.when == "after" and call.facts.get("kind") in ("adapter", "base", "merged")
    ]
    wrong = [call for call in saved if call.facts["kind"] == "base"]
    if wrong and len(wrong) == len(saved):
        yield self.finding(
            "what is saved after training is the base, without the adapter",
            place=wrong[0].place,
            key="lora",
            fix="Save the PeftModel itself, or merge_and_unload first.",
        )


@check("FT805", "loaded-on-another-base", Level.ROUNDTRIP, Severity.ERROR)
def other_base(self: Check, seen: Seen) -> Iterator[Finding]:
    """The adapter is loaded on other weights than it was trained on.

    Shapes fit, and nothing says so (peft#1567). Compared by a hash of the base's weights.

    Bad: an adapter of `gpt2` on a fine-tuned `gpt2`.

    Good: `PeftConfig.from_pretrained(folder).base_model_name_or_path`
    """
    for call in seen.followed().of("load-adapter"):
        if call.facts.get("same_base") is False:
            yield self.finding(
                "the adapter is loaded on a base with other weights than it was trained on",
                place=call.place,
                evidence=call.facts.get("evidence", ()),
                key="model.name_or_path",
                fix="Load the base that the adapter was trained on.",
            )


@check("FT808", "weights-match-nothing", Level.ROUNDTRIP, Severity.ERROR)
def match_nothing(self: Check, seen: Seen) -> Iterator[Finding]:
    """Weights are loaded into a model that has none of their names, and nothing is said.

    `strict=False` leaves out what it does not know: all of it, where the model is not wrapped as it
    was when the weights were saved. The model generates as if it had not been trained.

    Bad: `model.load_state_dict(load_file("adapter_model.safetensors"), strict=False)`

    Good: `PeftModel.from_pretrained(model, "adapter")`
    """
    record = seen.record
    loaded = record.of("load-state") if record is not None else ()
    for call in loaded or seen.followed().of("load-state"):
        yield self.finding(
            f"none of {call.facts['count']} weights that are loaded has the name of one of the "
            "model's: nothing changes",
            place=call.place,
            evidence=call.facts.get("evidence", ()),
            key="model",
            fix="Load an adapter by PeftModel.from_pretrained; leave strict=False out.",
        )


@check("FT806", "tokenizer-not-saved", Level.ROUNDTRIP, Severity.NOTE)
def tokenizer(self: Check, seen: Seen) -> Iterator[Finding]:
    """The tokenizer is not saved with the model.

    A warning where tokens were added to it: their ids are gone with it.

    Bad: `Trainer(model=model, ...)` without `processing_class`, and `model.save_pretrained`.

    Good: `tokenizer.save_pretrained(folder)`
    """
    record = seen.followed()
    setup = seen.need("setup")
    kinds = {call.facts.get("kind") for call in record.of("save")}
    if not kinds or setup.processing_saved or "tokenizer" in kinds:
        return
    added = seen.text is not None and seen.text.size > seen.text.vocab_size
    grown = bool(record.of("resize"))
    yield self.finding(
        "the tokenizer is not saved" + (", and tokens were added to it" if added and grown else ""),
        key="tokenization",
        fix="Give the trainer processing_class=tokenizer, or save it beside the model.",
        severity=Severity.WARNING if added and grown else None,
    )


@check("FT807", "new-embeddings-not-saved", Level.ROUNDTRIP, Severity.ERROR)
def new_embeddings(self: Check, seen: Seen) -> Iterator[Finding]:
    """Tokens were added, and their rows of the embedding are neither trained nor saved.

    Loading draws them anew, at random (peft#1457). Looked at by what the saved file holds. A pad
    token that is never learned harms nobody: only tokens that rows hold under the mask count.

    Bad: `resize_token_embeddings` and `LoraConfig` without `modules_to_save` or
    `trainable_token_indices`.

    Good: `LoraConfig(trainable_token_indices=[...], ...)`
    """
    setup = seen.need("setup")
    if not setup.adapters or seen.text is None:
        raise NotApplicable("no adapter, or no tokenizer")
    resized = seen.record.of("resize") if seen.record is not None else ()
    sizes = [int(call.facts["old"]) for call in resized]
    sizes += [] if setup.grown_from is None else [setup.grown_from]
    if not sizes:
        raise NotApplicable("the embedding was not resized")
    old = min(sizes)
    used = {
        token
        for row in seen.rows("batches")
        for place, token in enumerate(row.ids)
        if token >= old and (row.mask is None or row.mask[place])
    }
    if not used:
        raise NotApplicable("no row holds an added token")
    trained = any(
        one.trainable and ("embed" in one.name or "wte" in one.name) for one in setup.parameters
    )
    if not trained:
        yield self.finding(
            f"{len(used)} added tokens are in the rows, and their embeddings are not trained",
            evidence=[seen.text.show(sorted(used))],
            key="lora.modules_to_save",
            fix="Set trainable_token_indices, or name the embedding in modules_to_save.",
        )
