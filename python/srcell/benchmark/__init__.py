"""Times srcell and its alternatives in PyTorch on the same work.

``srcell bench`` and the scripts of the repository's ``bench/`` call this. It calls public functions only. Every
workload runs in its own process: the state that it leaves in the heap, in torch's compiler and in the thread pools
would change the times of the next one.
"""

from ._document import document
from .cases import CASES, LABELS, Workload, choose
from .timing import Result, measure, run

__all__ = ["CASES", "LABELS", "Result", "Workload", "choose", "document", "measure", "run"]
