"""Times steps of PyTorch transformers' BERT for encoders.py."""

import encoder_cells as cells
import torch
from transformers import BertConfig, BertForSequenceClassification


def build(cell: dict):
    """Makes the step of a cell.

    bfloat16: bfloat16 weights forward, and autocast over float32 weights in training, as in JAX.
    """
    size, train, half = cell["size"], cell["mode"] == "train", cell["dtype"] == "bfloat16"
    torch.manual_seed(0)
    config = BertConfig(**cells.config(size), attn_implementation="sdpa", num_labels=2)
    model = BertForSequenceClassification(config).train(train)
    if half and not train:
        model = model.to(torch.bfloat16)
    arrays = {k: torch.from_numpy(v) for k, v in cells.batch(size, cell["length"]).items()}
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs, labels = {k: arrays[k].long() for k in names}, arrays["label"].long()
    call = torch.compile(model) if cell["variant"] == "compile" else model
    if not train:

        def forward():
            with torch.inference_mode():
                call(**inputs)

        return forward

    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.01, fused=True)

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = call(**inputs).logits
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


if __name__ == "__main__":
    cells.serve(build)
