"""Small sentence-transformers models of several kinds, with random weights; graphs beside models, as hubs carry them.

Imported by slow tests alone: it loads torch.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TEXTS = [
    "The cat sat on the mat.",
    "a feline",
    "Quarterly revenue rose by 4 %, which nobody had expected after the winter.",
    "naïve café 日本語",
    "x",
    "Bread rises because yeast feeds on the sugar in the flour. " * 3,
]


def bare(folder: Path) -> Any:
    """Return what sentence-transformers loads."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), local_files_only=True, device="cpu")


def cosines(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    return (one * other).sum(axis=1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))


def bert(folder: Path, minilm: Path, *last: Any, **settings: Any) -> Path:
    """Save a BERT with MiniLM's tokenizer; ``last`` are the modules after it."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(7)
    base = folder / "base"
    size: Any = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(**size, max_position_embeddings=128)).save_pretrained(base)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(minilm / name, base)
    return _saved(folder, base, last, settings)


def roberta(folder: Path, *last: Any, **settings: Any) -> Path:
    """Save an XLM-RoBERTa with a SentencePiece-like tokenizer, whose positions depend on the padding token."""
    import torch
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    base = folder / "base"
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        cls_token="<s>", sep_token="</s>", mask_token="<mask>", model_max_length=510,
    ).save_pretrained(base)  # fmt: skip
    torch.manual_seed(8)
    XLMRobertaModel(
        XLMRobertaConfig(
            vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=64, max_position_embeddings=514, type_vocab_size=1, pad_token_id=1,
        )
    ).save_pretrained(base)  # fmt: skip
    return _saved(folder, base, last, settings)


def _saved(folder: Path, base: Path, last: Sequence[Any], settings: dict[str, Any]) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer

    client = SentenceTransformer(modules=[Transformer(str(base)), *last], device="cpu", **settings)
    whole = folder / "model"
    client.save(str(whole), create_model_card=False)
    shutil.rmtree(base)
    return whole


def add_graph(folder: Path, name: str = "onnx/model.onnx") -> Path:
    """Write a model's transformer, without what follows, as a graph beside it, as optimum does."""
    import torch

    client = bare(folder)
    features = {name: value for name, value in client.preprocess(TEXTS[:3]).items() if isinstance(value, torch.Tensor)}

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = client[0]

        def forward(self, *inputs: Any) -> Any:
            return self.first(dict(zip(features, inputs, strict=True)))["token_embeddings"]

    (folder / name).parent.mkdir(exist_ok=True)
    axes = {name: {0: "texts", 1: "tokens"} for name in (*features, "last_hidden_state")}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            States().eval(), tuple(features.values()), str(folder / name), input_names=list(features),
            output_names=["last_hidden_state"], dynamic_axes=axes, dynamo=False,
        )  # fmt: skip
    return folder / name
