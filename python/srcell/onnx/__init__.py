"""Exports networks of SRC layers as ONNX models of standard operators, which onnxruntime can run."""

from ._export import export, translation_table

for _function in (export, translation_table):
    _function.__module__ = __name__

__all__ = ["export", "translation_table"]
