"""The C library of csrc/, as cffi compiles it.

What is in it is declared once, in csrc/oort.h and csrc/load.h between their cffi marks, and known
to cffi at run time only: here it is Any.  Code that calls it directly stays inside the thin
wrappers (oort.store, oort.dataplane and the like), whose own faces are typed.
"""

from typing import Any

ffi: Any
lib: Any
