"""The C library of csrc/, compiled by cffi.

Its declarations are in csrc/oort.h and csrc/load.h, between their cffi marks.  cffi reads them only
at run time, so the types here are Any.  Only the wrappers (such as oort.store and oort.dataplane)
call the library directly; their own interfaces are typed.
"""

from typing import Any

ffi: Any
lib: Any
