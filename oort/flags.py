"""A parser of flags that says what is wrong with them in one line.

argparse prints the whole usage before the error; that is what --help is for.
"""

from __future__ import annotations

import argparse
from typing import NoReturn


class FlagParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exit with code 2, argparse's for wrong usage."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")
