"""Networks of SRC layers as ONNX models of standard operators, for ``torch.onnx.export`` and so for onnxruntime.

Users call it; it knows the layers, and nothing of how a model is run.
"""

from ._export import export, translation_table

for _function in (export, translation_table):
    _function.__module__ = __name__

__all__ = ["export", "translation_table"]
