"""ONNX graphs: read without trusting them, searched for the places where they can be cut, and cut there.

Plain functions on onnx.ModelProto. Nothing here knows a backbone, a tokeniser or a picture; nothing of onnx or
onnxruntime is imported before a function is called.
"""
