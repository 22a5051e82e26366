"""Small random models of every architecture, and what PyTorch transformers computes with them."""

import numpy as np
import torch
import transformers

TOLERANCE = 1e-4  # float32, absolute, on states of scale 1; for gradients relative to the largest

POOLED = ("bert", "roberta", "xlm-roberta", "camembert", "mpnet")


def torch_model(kind, options):
    """A random model in which no weight is trivial: biases and scales are random too."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **options)
    extra = {"add_pooling_layer": False} if kind in POOLED else {}
    model = transformers.AutoModel.from_config(config, **extra).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def torch_states(model, batch, types):
    """{name of ours: state of PyTorch}, and the last state, which still knows its gradient.

    Embeddings, every layer, and what else has a name of its own in the encoder.
    """
    layers = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    watched = {"embeddings": model.embeddings}
    watched |= {f"layer_{number}": layer for number, layer in enumerate(layers)}
    if hasattr(model, "embeddings_project"):
        watched["embeddings_projection"] = model.embeddings_project
    if hasattr(model, "final_norm"):
        watched["final_norm"] = model.final_norm
    if getattr(getattr(model, "encoder", None), "conv", None) is not None:
        watched["layer_0"] = model.encoder.conv  # it follows the first layer
    states, handles = {}, []
    for name, module in watched.items():

        def keep(_, __, output, name=name):
            output = output[0] if isinstance(output, tuple) else output
            states[name] = output.detach().numpy()

        handles.append(module.register_forward_hook(keep))
    ids, mask = (torch.tensor(batch[k]).long() for k in ("input_ids", "attention_mask"))
    extra = {"token_type_ids": torch.tensor(batch["token_type_ids"]).long()} if types else {}
    last = model(ids, attention_mask=mask, **extra).last_hidden_state
    for handle in handles:
        handle.remove()
    return states, last


def assert_close(ours, theirs, what):
    difference = np.abs(np.asarray(ours) - np.asarray(theirs)).max()
    print(f"{what}: largest difference {difference:.1e}")
    assert difference <= TOLERANCE, what
    return difference
