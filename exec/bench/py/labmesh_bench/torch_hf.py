"""Models by way of Hugging Face transformers, never from the network.

In this order: the checkpoint in the cache of this machine; its config in the
cache, with random weights; for the models that are known by name, the config of
the published checkpoint, with random weights.
"""

import sys

from . import torch_models, wire
from .torch_engine import Loaded

try:
    import transformers
except ImportError as problem:
    raise wire.Fatal("no_engine", "%s has no usable transformers: %s" % (sys.executable, problem))
except Exception as problem:  # it checks the versions of what it needs
    raise wire.Fatal("no_engine", "transformers does not import: %s" % wire.short(problem))

# Of each known model: names in the cache, the type of config with what differs
# from its defaults, and the class that runs it.
KNOWN = {
    "bert-base-uncased": (["google-bert/bert-base-uncased", "bert-base-uncased"], "bert", {}, "AutoModel"),
    "bert-large-uncased": (
        ["google-bert/bert-large-uncased", "bert-large-uncased"],
        "bert",
        {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
        "AutoModel",
    ),
    "gpt2": (["openai-community/gpt2", "gpt2"], "gpt2", {}, "AutoModelForCausalLM"),
    "resnet18": (
        ["microsoft/resnet-18"],
        "resnet",
        {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic", "num_labels": 1000},
        "AutoModelForImageClassification",
    ),
    "resnet50": (["microsoft/resnet-50"], "resnet", {"num_labels": 1000}, "AutoModelForImageClassification"),
    "t5-base": (["google-t5/t5-base", "t5-base"], "t5", {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12}, "AutoModelForSeq2SeqLM"),
    "t5-small": (["google-t5/t5-small", "t5-small"], "t5", {"d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8}, "AutoModelForSeq2SeqLM"),
    "vit-b16": (["google/vit-base-patch16-224"], "vit", {"num_labels": 1000}, "AutoModelForImageClassification"),
    "whisper-tiny": (
        ["openai/whisper-tiny"],
        "whisper",
        {"d_model": 384, "encoder_layers": 4, "decoder_layers": 4, "encoder_attention_heads": 6, "decoder_attention_heads": 6, "encoder_ffn_dim": 1536, "decoder_ffn_dim": 1536},
        "AutoModelForSpeechSeq2Seq",
    ),
}

LOCAL = {"local_files_only": True, "trust_remote_code": False}


def load(spec, known):
    """Makes the model of spec. known is its name among the known ones, or None."""
    if known == "mlp":
        raise wire.Fatal("no_model_file", "the mlp is no Hugging Face model")
    names, kind, different, class_name = KNOWN[known] if known else ([spec.model], None, {}, None)
    config, name = cached_config(names)
    notes = []
    if config is None:
        if known is None:
            raise wire.Fatal(
                "no_model_file",
                "%.120s is not in the Hugging Face cache of this machine, and nothing is fetched during a benchmark: "
                "run `hf download %.120s` there first (HF_HOME says where the cache is), or choose one of %s" % (spec.model, spec.model, ", ".join(sorted(torch_models.PARAMS))),
            )
        config = transformers.CONFIG_MAPPING[kind](**different)
        notes.append("the config is that of the published checkpoint: there is none in the Hugging Face cache")
    refuse_code(config, spec.model)
    config.use_cache = False
    auto = getattr(transformers, class_name or class_for(config))
    module, weights = None, "random"
    if name is not None:
        module = cached_model(auto, name, config, notes)
        weights = "random" if module is None else "pretrained"
    if module is None:
        module = auto.from_config(config)
    if known:
        torch_models.check_params(known, module)
    inputs, shape = inputs_of(module, spec, known)
    return Loaded(
        module=module,
        name=known or spec.model,
        source="hf",
        weights=weights,
        shape=shape,
        flops=torch_models.describe(known, spec.sequence_length, spec.image_size).flops if known else None,
        attention=getattr(config, "_attn_implementation", None),
        notes=notes,
        inputs=inputs,
    )


def cached_config(names):
    """The first config in the cache, and the name it has there."""
    for name in names:
        try:
            return transformers.AutoConfig.from_pretrained(name, **LOCAL), name
        except (OSError, KeyError):
            continue
        except ValueError as problem:
            if "trust_remote_code" in str(problem) or "custom code" in str(problem):
                raise needs_code(name)
            raise wire.Fatal("unknown_model", "%s: %s" % (name, wire.short(problem)))
    return None, None


def refuse_code(config, name):
    if getattr(config, "auto_map", None) and not isinstance(config, tuple(transformers.CONFIG_MAPPING.values())):
        raise needs_code(name)


def needs_code(name):
    return wire.Fatal(
        "unknown_model",
        "%.120s brings code of its own, which labmesh does not run: use a model that transformers %s has, or write a runner for it (see docs/runner-protocol.md)" % (name, transformers.__version__),
    )


def cached_model(auto, name, config, notes):
    """The checkpoint in the cache, or None where only its config is there."""
    try:
        return auto.from_pretrained(name, config=config, **LOCAL)
    except OSError as problem:
        notes.append("random weights: the cache has the config of %s only (%s)" % (name, wire.short(problem)[:200]))
        return None


def class_for(config):
    """The automatic class for a config that is not known by name, from the architecture it names."""
    architecture = (getattr(config, "architectures", None) or [""])[0]
    for ending, name in (
        ("ForConditionalGeneration", "AutoModelForSeq2SeqLM"),
        ("LMHeadModel", "AutoModelForCausalLM"),
        ("ForCausalLM", "AutoModelForCausalLM"),
        ("ForImageClassification", "AutoModelForImageClassification"),
        ("ForSequenceClassification", "AutoModelForSequenceClassification"),
        ("ForMaskedLM", "AutoModelForMaskedLM"),
    ):
        if architecture.endswith(ending):
            return name
    return "AutoModel"


def inputs_of(module, spec, known):
    """What to feed a model, and the shape of an item for people."""
    config = module.config
    main = getattr(module, "main_input_name", "input_ids")
    words = getattr(config, "vocab_size", None)
    longest = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 1 << 20
    if main == "input_ids" and words:
        n = torch_models.length_of(spec.model, spec.sequence_length, min(128, longest), longest if known not in ("t5-small", "t5-base") else 1 << 20)
        inputs, shape = [("input_ids", "tokens", (n,), words)], {"sequence_length": n}
        if getattr(config, "is_encoder_decoder", False):
            inputs.append(("decoder_input_ids", "tokens", (n,), words))
            shape["target_length"] = n
        return inputs, shape
    if main == "pixel_values":
        size = spec.image_size or getattr(config, "image_size", None) or 224
        size = size if isinstance(size, int) else size[0]
        channels = getattr(config, "num_channels", 3)
        return [("pixel_values", "normal", (channels, size, size), None)], {"image_size": size, "channels": channels}
    if main == "input_features" and words and getattr(config, "num_mel_bins", None):
        n = torch_models.length_of(spec.model, spec.sequence_length, 32, getattr(config, "max_target_positions", 448))
        frames = 2 * getattr(config, "max_source_positions", 1500)
        inputs = [("input_features", "normal", (config.num_mel_bins, frames), None), ("decoder_input_ids", "tokens", (n,), words)]
        return inputs, {"mel_bins": config.num_mel_bins, "frames": frames, "target_length": n}
    raise wire.Fatal("unknown_model", "%.120s takes %s: what to feed it is not known here; write a runner for it (see docs/runner-protocol.md)" % (spec.model, main))
