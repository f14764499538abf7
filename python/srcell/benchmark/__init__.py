"""How fast srcell is beside what a user would otherwise run, on the same work.

``srcell bench`` and the scripts of the repository's ``bench/`` call this; it must never know how a table is drawn or a
file is read. It measures through the public functions alone. Every setting runs in a process of its own, because what
one leaves in the heap, in torch's compiler and in the thread pools changes the times of the next.
"""

from .cases import CASES, LABELS, Setting, choose
from .recording import record
from .timing import Result, measure, run

__all__ = ["CASES", "LABELS", "Result", "Setting", "choose", "measure", "record", "run"]
