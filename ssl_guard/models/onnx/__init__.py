"""ONNX graphs of encoders and heads, with dynamic batch and length. Needs the extra "export"."""
