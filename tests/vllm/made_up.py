"""Makes a tiny model that nobody trained, and two adapters: `python made_up.py FOLDER`.

It runs in the Python of a vLLM, for its `tokenizers`, and downloads nothing. The weights are not
there at all: `--load-format dummy` lets vLLM make them up. What the adapters hold is drawn at
random, and large enough that the answers of the base and of each adapter differ.

The smallest size that vLLM's attention on a CPU can compute is a head of 32: with less, the server
starts, says that it is healthy, and dies of the first request.
"""

from __future__ import annotations

import json
import random
import struct
import sys
from pathlib import Path
from typing import Any

LAYERS = 2
HIDDEN = 64
HEADS = 2
KV_HEADS = 1
VOCABULARY = 1024
CONTEXT = 2048
RANK = 8
ADAPTERS = ("lora-a", "lora-b")
END = "<|end|>"
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make(folder: Path) -> None:
    """`folder/tiny` is the model, `folder/lora-a` and `folder/lora-b` its adapters."""
    model = folder / "tiny"
    model.mkdir(parents=True, exist_ok=True)
    _write_json(model / "config.json", _config())
    _write_json(
        model / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END,
            "pad_token": END,
            "chat_template": TEMPLATE,
            "model_max_length": CONTEXT,
        },
    )
    _train_tokenizer(model / "tokenizer.json")
    for number, name in enumerate(ADAPTERS):
        _make_adapter(folder / name, random.Random(number))


def _config() -> dict[str, Any]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "num_hidden_layers": LAYERS,
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 0,
    }


def _train_tokenizer(path: Path) -> None:
    """Bytes and what the project's own pages say most often."""
    # They come with vLLM and are not in the environment that checks these types.
    from tokenizers import (  # type: ignore[import-not-found]
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
        trainers,
    )

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pages = Path(__file__).resolve().parents[2] / "docs"
    tokenizer.train_from_iterator(
        [page.read_text(encoding="utf-8") for page in sorted(pages.glob("*.md"))], trainer
    )
    tokenizer.save(str(path))


def _make_adapter(folder: Path, draw: random.Random) -> None:
    folder.mkdir(exist_ok=True)
    head = HIDDEN // HEADS
    widths = {"q_proj": HIDDEN, "k_proj": KV_HEADS * head, "v_proj": KV_HEADS * head}
    widths["o_proj"] = HIDDEN
    _write_json(
        folder / "adapter_config.json",
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": "tiny",
            "r": RANK,
            "lora_alpha": 2 * RANK,
            "lora_dropout": 0.0,
            "bias": "none",
            "target_modules": list(widths),
        },
    )
    shapes = {}
    for layer in range(LAYERS):
        for projection, width in widths.items():
            name = f"base_model.model.model.layers.{layer}.self_attn.{projection}"
            shapes[f"{name}.lora_A.weight"] = (RANK, HIDDEN)
            shapes[f"{name}.lora_B.weight"] = (width, RANK)
    _write_safetensors(folder / "adapter_model.safetensors", shapes, draw)


def _write_safetensors(path: Path, shapes: dict[str, tuple[int, int]], draw: random.Random) -> None:
    """The format: the header's length (8 bytes, little endian), a header in JSON, the numbers."""
    header: dict[str, Any] = {}
    content = bytearray()
    for name, (rows, columns) in shapes.items():
        start = len(content)
        values = (draw.gauss(0.0, 1.0) for _ in range(rows * columns))
        content += struct.pack(f"<{rows * columns}f", *values)
        header[name] = {
            "dtype": "F32",
            "shape": [rows, columns],
            "data_offsets": [start, len(content)],
        }
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
