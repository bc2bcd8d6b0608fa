"""ONNX graphs of torch modules, and the sessions that run them."""
