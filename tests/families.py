"""Small models of every architecture, and batches for them."""

import numpy as np

SIZE = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
_DISTIL = {
    "vocab_size": 50,
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 48,
    "max_position_embeddings": 40,
}
_V3 = SIZE | {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 8,
    "max_relative_positions": -1,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
}
_APART = _V3 | {"share_att_key": False}
_MODERN = SIZE | {"local_attention": 8, "pad_token_id": 0}

# Every option that changes the mathematics is switched on and off somewhere.
CASES = {
    "bert": ("bert", SIZE),
    "bert relu": ("bert", SIZE | {"hidden_act": "relu", "type_vocab_size": 3}),
    "roberta": ("roberta", SIZE | {"pad_token_id": 1, "type_vocab_size": 1}),
    "xlm-roberta gelu_new": (
        "xlm-roberta",
        SIZE | {"pad_token_id": 2, "type_vocab_size": 2, "hidden_act": "gelu_new"},
    ),
    "camembert": ("camembert", SIZE | {"pad_token_id": 1, "type_vocab_size": 1}),
    "distilbert": ("distilbert", _DISTIL),
    "distilbert silu": ("distilbert", _DISTIL | {"activation": "silu"}),
    "electra narrow": ("electra", SIZE | {"embedding_size": 16}),
    "electra": ("electra", SIZE | {"embedding_size": 32, "hidden_act": "gelu_pytorch_tanh"}),
    "mpnet": ("mpnet", SIZE | {"pad_token_id": 1}),
    "deberta v3": ("deberta-v2", _V3),
    "deberta v2-xlarge": (
        "deberta-v2",
        _V3 | {"conv_kernel_size": 3, "conv_act": "gelu", "conv_groups": 1},
    ),
    "deberta grouped convolution": (
        "deberta-v2",
        _V3 | {"conv_kernel_size": 5, "conv_groups": 4},
    ),
    "deberta c2p": ("deberta-v2", _APART | {"pos_att_type": "c2p", "norm_rel_ebd": "none"}),
    "deberta p2c": ("deberta-v2", _APART | {"pos_att_type": ["p2c"]}),
    "deberta apart": ("deberta-v2", _APART | {"pos_att_type": "p2c|c2p"}),
    "deberta without buckets": (
        "deberta-v2",
        _V3 | {"position_buckets": -1, "max_relative_positions": 5},
    ),
    "deberta with absolute positions": (
        "deberta-v2",
        _V3 | {"position_biased_input": True, "type_vocab_size": 2, "embedding_size": 16},
    ),
    "deberta without distances": (
        "deberta-v2",
        _V3 | {"relative_attention": False, "norm_rel_ebd": "none"},
    ),
    "modernbert": ("modernbert", _MODERN | {"num_hidden_layers": 4}),
    "modernbert with biases": (
        "modernbert",
        _MODERN
        | {
            "norm_bias": True,
            "attention_bias": True,
            "mlp_bias": True,
            "hidden_activation": "silu",
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 500.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
        },
    ),
}


def make_batch(vocab, lengths, pad=0, low=3):
    """Random ids, the later half of the rows' tokens of the second type; the batch's own pad id."""
    rng = np.random.default_rng(0)
    length = np.array(lengths)[:, None]
    position = np.arange(max(lengths))[None]
    mask = (position < length).astype(np.int32)
    return {
        "input_ids": np.where(mask > 0, rng.integers(low, vocab, mask.shape), pad).astype(np.int32),
        "attention_mask": mask,
        "token_type_ids": ((position >= length // 2) & (mask > 0)).astype(np.int32),
        "row": np.arange(len(lengths), dtype=np.int32),
    }
