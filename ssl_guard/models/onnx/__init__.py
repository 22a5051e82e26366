"""ONNX graphs of the encoders and heads, with dynamic batch and length; needs the extra "export"."""
