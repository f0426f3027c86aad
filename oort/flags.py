"""A parser of flags whose errors are one line.

argparse's own parser prints the whole usage before an error.
"""

from __future__ import annotations

import argparse
from typing import NoReturn


class FlagParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exit with code 2, which argparse uses for invalid usage."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")
