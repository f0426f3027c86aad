"""The one error tree of oort: every error a caller may want to tell apart has a class here."""

from __future__ import annotations


class OortError(Exception):
    """Base of every error of this package; its text is one line for the operator."""


class ConfigError(OortError):
    """A setting is wrong: the text names the source, the section and the key."""


class BootError(OortError):
    """The daemon cannot start; the text says why and what to do."""


class LoadError(OortError):
    """oort-bench cannot start a load: a contradiction, or a server that cannot be reached."""
