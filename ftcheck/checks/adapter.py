"""FT3xx: adapters, and what they are put on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from ftcheck.checks.explained import sentence_of
from ftcheck.checks.facts import Adapter, Failure, Setup
from ftcheck.checks.finding import Finding, Level, NotApplicable, NotMeasured, Severity
from ftcheck.checks.registry import Check, check
from ftcheck.checks.seen import Seen
from ftcheck.environment import installed_version

__all__: list[str] = []


def _lora(seen: Seen) -> list[Adapter]:
    setup = seen.need("setup")
    if not setup.adapters:
        raise NotApplicable("the model has no adapter")
    return [one for one in setup.adapters if one.active] or list(setup.adapters)


@check("FT301", "targets-match-nothing", Level.STATIC, Severity.ERROR)
def nothing(self: Check, seen: Seen) -> Iterator[Finding]:
    """No module of the model has the name of a target.

    "Target modules {'q_proj'} not found in the base model."

    Bad: `target_modules=["q_proj", "v_proj"]` on GPT-2.

    Good: `target_modules=["c_attn", "c_proj"]`
    """
    for failure in (seen.refused, seen.record.failure if seen.record else None):
        if failure is None:
            continue
        if _unmatched_part(seen, failure):
            continue  # FT302
        named = "lora.target_modules" in failure.text or "Target modules" in failure.text
        if named and ("no module of" in failure.text or "not found" in failure.text):
            yield self.finding(
                sentence_of(failure)[0],
                evidence=failure.text.splitlines()[1:],
                place=failure.place,
                key="lora.target_modules",
                fix="Name modules of this model.",
            )


def _unmatched_part(seen: Seen, failure: Failure) -> bool:
    """Whether a recipe was refused since some of its targets match nothing, and not all of them."""
    if seen.recipe is None or seen.recipe.lora is None or "no module of" not in failure.text:
        return False
    targets = seen.recipe.lora.get("target_modules")
    sentence = sentence_of(failure)[0]
    return isinstance(targets, list) and any(repr(one) not in sentence for one in targets)


@check("FT302", "targets-match-in-part", Level.STATIC, Severity.ERROR)
def in_part(self: Check, seen: Seen) -> Iterator[Finding]:
    """Some targets match modules, and others match nothing; peft says nothing about them.

    Bad: `target_modules=["c_attn", "v_proj"]` on GPT-2: `v_proj` is ignored.

    Good: names that the model has.
    """
    if seen.refused is not None and _unmatched_part(seen, seen.refused):
        yield self.finding(
            sentence_of(seen.refused)[0],
            evidence=seen.refused.text.splitlines()[1:],
            key="lora.target_modules",
            fix="Correct the name, or leave it out.",
        )
        return
    setup = seen.need("setup")
    for adapter in _lora(seen):
        targets = adapter.config.get("target_modules")
        if not isinstance(targets, (list, tuple)):
            continue
        names = [one.name for one in setup.modules]
        unmatched = [
            target
            for target in targets
            if not any(name == target or name.endswith(f".{target}") for name in names)
        ]
        if unmatched and len(unmatched) < len(targets):
            leaves = sorted({name.rpartition(".")[2] for name in names})
            yield self.finding(
                f"no module is named {', '.join(map(repr, unmatched))}; peft adapts the others and "
                "says nothing",
                evidence=[f"modules with weights: {', '.join(leaves)}"],
                key="lora.target_modules",
                fix="Correct the name, or leave it out.",
            )


@check("FT303", "targets-match-several-places", Level.STATIC, Severity.NOTE)
def several(self: Check, seen: Seen) -> Iterator[Finding]:
    """One target name hits modules in different places of a block.

    `c_proj` of GPT-2 is in the attention and in the MLP. Deliberate or not, nobody can tell: it is
    said, with the count.

    Bad: nothing is wrong with it, if it is meant.

    Good, where it is not: `target_modules=["attn.c_attn", "attn.c_proj"]`.
    """
    setup = seen.need("setup")
    for adapter in _lora(seen):
        targets = adapter.config.get("target_modules")
        for target in targets if isinstance(targets, (list, tuple)) else ():
            parents = Counter(
                re.sub(r"\d+", "#", one.name).rpartition(".")[0].rpartition(".")[2]
                for one in setup.modules
                if one.adapted and (one.name == target or one.name.endswith(f".{target}"))
            )
            if len(parents) > 1:
                shown = ", ".join(
                    f"{count} in {parent or 'the model'}" for parent, count in parents.items()
                )
                yield self.finding(
                    f"{target!r} adapts modules in {len(parents)} places: {shown}",
                    key="lora.target_modules",
                    fix="Name the parent, too, if one place is meant.",
                )


@check("FT304", "adapter-scaled-to-nothing", Level.STATIC, Severity.ERROR)
def scale(self: Check, seen: Seen) -> Iterator[Finding]:
    """`lora_alpha` is 0: what the adapter computes is multiplied by zero.

    Bad: `LoraConfig(r=8, lora_alpha=0)`

    Good: `lora_alpha` of `r` or twice `r`.
    """
    for adapter in _lora(seen):
        if "lora_alpha" in adapter.config and adapter.config["lora_alpha"] == 0:
            yield self.finding(
                "lora_alpha is 0: the adapter changes nothing, whatever it learns",
                key="lora.lora_alpha",
                fix=f"Set lora_alpha to {2 * int(adapter.config.get('r') or 8)}.",
                change={"lora.lora_alpha": 2 * int(adapter.config.get("r") or 8)},
            )


@check("FT305", "adapter-dropout-high", Level.STATIC, Severity.WARNING)
def dropout(self: Check, seen: Seen) -> Iterator[Finding]:
    """`lora_dropout` leaves next to nothing of the adapter's input.

    A warning from 0.7 on, where published recipes have 0 to 0.1; an error from 0.95 on.

    Bad: `lora_dropout=0.95`, where 0.05 was meant.

    Good: `lora_dropout=0.05`
    """
    for adapter in _lora(seen):
        rate = float(adapter.config.get("lora_dropout") or 0.0)
        if rate >= 0.7:
            yield self.finding(
                f"lora_dropout is {rate}: the adapter sees {100 * (1 - rate):.0f} % of its input",
                key="lora.lora_dropout",
                fix="Set it to 0.05.",
                change={"lora.lora_dropout": 0.05},
                severity=Severity.ERROR if rate >= 0.95 else None,
            )


@check("FT306", "nothing-trainable", Level.STATIC, Severity.ERROR)
def frozen(self: Check, seen: Seen) -> Iterator[Finding]:
    """No parameter is trained, or none of the adapter that the model uses.

    It comes from `PeftModel.from_pretrained` without `is_trainable=True`, from freezing after
    wrapping, from wrapping before `prepare_model_for_kbit_training`, and from another adapter that
    is trained in its place.

    Bad: `model = PeftModel.from_pretrained(base, folder)`, and then training.

    Good: `PeftModel.from_pretrained(base, folder, is_trainable=True)`
    """
    setup = seen.need("setup")
    unused = {adapter.name for adapter in setup.adapters if not adapter.active}
    own = [
        one for one in setup.parameters if one.adapter and unused.isdisjoint(one.name.split("."))
    ]
    if setup.trainable and (not own or any(one.trainable for one in own)):
        return
    loaded = any(adapter.config.get("inference_mode") for adapter in setup.adapters)
    count = len(setup.parameters)
    if setup.trainable:
        other = "another adapter" if any(one.adapter for one in setup.trainable) else "the base"
        sentence = f"the adapter's {len(own)} tensors are frozen, and {other} is trained"
    else:
        sentence = f"none of the {count} parameters is trained"
    fix = "Freeze the base before the adapter is put on it."
    if loaded and seen.recipe is not None:
        fix = "Leave inference_mode out, which freezes the adapter."
    elif loaded:
        fix = "Load the adapter with is_trainable=True."
    elif setup.quantized:
        fix = "Call prepare_model_for_kbit_training before get_peft_model: it freezes everything."
    yield self.finding(sentence, key="lora.inference_mode" if loaded else "lora", fix=fix)


@check("FT307", "base-trained-beside-adapter", Level.STATIC, Severity.WARNING)
def base_trained(self: Check, seen: Seen) -> Iterator[Finding]:
    """Parameters of the base are trained, and are not saved with the adapter.

    What they learned is lost with the run: loading the adapter on the published base computes
    something else. `modules_to_save`, trained tokens and the biases that `bias=` asks for (all of
    them, or those of adapted layers) are the adapter's own.

    Bad: unfreezing the base after `get_peft_model`.

    Good: `LoraConfig(modules_to_save=["lm_head"], ...)`
    """
    setup = seen.need("setup")
    adapters = _lora(seen)
    if all(not one.trainable for one in setup.parameters if one.adapter):
        raise NotApplicable("the adapter is frozen itself")
    kinds = {str(adapter.config.get("bias") or "none") for adapter in adapters}
    # As peft has it (`mark_only_adapters_as_trainable`): all of them, or those of adapted layers.
    asked = tuple("bias" if kind == "all" else ".base_layer.bias" for kind in kinds - {"none"})
    loose = [one for one in setup.trainable if not one.adapter and not one.name.endswith(asked)]
    if loose:
        yield self.finding(
            f"{len(loose)} parameters of the base are trained, and not saved with the adapter",
            evidence=[one.name for one in loose[:3]],
            key="lora",
            fix="Freeze them, or name their modules in modules_to_save.",
        )


@check("FT308", "wrapped-twice", Level.STATIC, Severity.WARNING)
def twice(self: Check, seen: Seen) -> Iterator[Finding]:
    """An adapter is put on a model that has one.

    Saving keeps the outer one, and what the inner one is about is lost.

    Bad: `get_peft_model(get_peft_model(model, config), config)`; in a notebook, the cell run twice.

    Good: `model.add_adapter("second", config)`, or a freshly loaded base.
    """
    setup = seen.need("setup")
    _lora(seen)
    if setup.nested_peft:
        yield self.finding(
            "the model was wrapped by peft twice", key="lora", fix="Wrap a freshly loaded base."
        )


def _tied_targets(setup: Setup, adapter: Adapter, field: str) -> list[str]:
    tied = {"lm_head", "embed_out", "wte", "embed_tokens", "embed_in"}
    given: Any = adapter.config.get(field)
    names = list(given) if isinstance(given, (list, tuple)) else []
    if isinstance(given, str):
        names = [
            one.name for one in setup.modules if one.adapted and one.name.rpartition(".")[2] in tied
        ]
    return [name for name in names if name.rpartition(".")[2] in tied]


@check("FT309", "adapter-on-tied-weights", Level.STATIC, Severity.WARNING)
def tied(self: Check, seen: Seen) -> Iterator[Finding]:
    """LoRA on the output layer or the embedding, which are one matrix.

    Only one of both gets the adapter; merging writes it into both. Measured: logits off by 11.4 of
    3.6 after a merge (peft#2018, transformers#45127).

    Bad: `target_modules=["c_attn", "lm_head"]` on GPT-2.

    Good: leave `lm_head` out, or `ensure_weight_tying=True` (peft 0.19).
    """
    setup = seen.need("setup")
    if not setup.tied and not setup.config.get("tie_word_embeddings"):
        raise NotApplicable("embedding and output layer are not tied")
    for adapter in _lora(seen):
        names = _tied_targets(setup, adapter, "target_modules")
        if names and not adapter.config.get("ensure_weight_tying"):
            yield self.finding(
                f"the adapter is on {', '.join(names)}, whose weights are tied: merging changes "
                "both",
                key="lora.target_modules",
                fix="Leave it out of target_modules.",
            )


@check("FT310", "saved-module-tied", Level.STATIC, Severity.NOTE)
def saved_tied(self: Check, seen: Seen) -> Iterator[Finding]:
    """`modules_to_save` copies one of two tied matrices.

    The copy is trained and the other is not. Below transformers 5 a merged model is off after
    loading (measured: by 2.0): a warning there.

    Bad: `modules_to_save=["lm_head"]` on GPT-2 under transformers 4.

    Good: `ensure_weight_tying=True`.
    """
    setup = seen.need("setup")
    if not setup.config.get("tie_word_embeddings", setup.tied):
        raise NotApplicable("embedding and output layer are not tied")
    old = (installed_version("transformers") or "5").startswith("4.")
    for adapter in _lora(seen):
        names = _tied_targets(setup, adapter, "modules_to_save")
        if names and not adapter.config.get("ensure_weight_tying"):
            yield self.finding(
                f"modules_to_save copies {', '.join(names)}, whose weights are tied",
                key="lora.modules_to_save",
                fix="Set ensure_weight_tying=True, or save both.",
                severity=Severity.WARNING if old else None,
            )


@check("FT312", "adapter-inactive", Level.STATIC, Severity.ERROR)
def inactive(self: Check, seen: Seen) -> Iterator[Finding]:
    """The model has an adapter and does not use it.

    It was disabled or merged. Where one adapter is active and another is trained, FT306 says so.

    Bad: `model.disable_adapter_layers()` and training.

    Good: `model.set_adapter("default")`
    """
    setup = seen.need("setup")
    _lora(seen)
    if not any(adapter.active for adapter in setup.adapters):
        names = ", ".join(adapter.name for adapter in setup.adapters)
        yield self.finding(
            f"no adapter is active ({names}): it is disabled or merged",
            key="lora",
            fix="Call model.set_adapter, or model.enable_adapter_layers.",
        )


@check("FT313", "rank-not-used", Level.STATIC, Severity.NOTE)
def rank(self: Check, seen: Seen) -> Iterator[Finding]:
    """The rank is as large as the smaller side of the matrices that it is to approximate.

    Such an adapter is larger than the matrix, and trains slower than the matrix itself.

    Bad: `r=1024` on GPT-2, whose matrices are 768 wide.

    Good: 8 to 64.
    """
    setup = seen.need("setup")
    _lora(seen)
    if not seen.real_weights:
        raise NotMeasured("matrices as large as those of the run are not on this machine")
    sizes = {one.name: one.shape for one in setup.parameters}
    full: dict[tuple[int, int], list[str]] = {}
    for name, shape in sizes.items():
        other = sizes.get(name.replace("lora_A", "lora_B")) if "lora_A" in name else None
        if other and shape[0] >= min(shape[1], other[0]):
            full.setdefault((shape[0], min(shape[1], other[0])), []).append(name)
    for (r, side), names in full.items():
        yield self.finding(
            f"r is {r}, and the smaller side of {len(names)} matrices is {side}",
            evidence=[name.partition(".lora_A")[0] for name in names[:3]],
            key="lora.r",
            fix="Set r to 8 … 64, and below that side.",
        )


@check("FT314", "adapter-drawn-unseeded", Level.STATIC, Severity.NOTE)
def unseeded(self: Check, seen: Seen) -> Iterator[Finding]:
    """The adapter is drawn before any seed is set: every run starts from another one.

    `Trainer` sets `args.seed` when it is made, which is after `get_peft_model`.

    Bad: `get_peft_model(model, config)` at the top of a script.

    Good: `transformers.set_seed(42)` above it.
    """
    for call in seen.need("record").of("wrap"):
        if not call.facts["seeded"]:
            yield self.finding(
                "the adapter is drawn before a seed is set: every run starts from another one",
                place=call.place,
                key="training.seed",
                fix="Call transformers.set_seed before get_peft_model.",
            )
