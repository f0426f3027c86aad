"""Reads layers of configuration from files, from rings and from the environment.

Texts are ConfigObj (INI with sections, no interpolation).  Values may be quoted as in TOML.  The
names of the original oort are read too if they correspond to a setting.  An unknown name is an
error in a file and in the environment.  In a ring's configuration it is ignored and reported,
because a newer syndicate must not stop older nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from configobj import ConfigObj, ConfigObjError

from oort.config.settings import (
    RING_ENVIRONMENT,
    SETTINGS,
    Layer,
    check_value,
    configspec,
)
from oort.errors import ConfigError

MAX_TEXT_BYTES = 16 * 1024**2

# Sections and names of the original oort for settings that have another place here.
_MOVED = {
    ("ValueStoreConfig", "Path"): "data_dir",
    ("ValueStoreConfig", "ValueCap"): "value_cap",
    ("ValueStoreConfig", "Workers"): "workers",
}
_BY_FIELD = {setting.field: setting for setting in SETTINGS}
_BY_PLACE = {(setting.section, setting.name): setting for setting in SETTINGS} | {
    place: _BY_FIELD[field] for place, field in _MOVED.items()
}
_SECTIONS = {section for section, _ in _BY_PLACE if section}


def file_layer(path: str) -> Layer:
    """Read a configuration file; ConfigError for unreadable files and unknown names."""
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    values, unknown = _read(path, text)
    if unknown:
        raise ConfigError(f"{path}: {unknown[0]}")
    return Layer(path, values)


def ring_layer(source: str, text: bytes) -> tuple[Layer, list[str]]:
    """A checked layer from a ring's configuration text, and a message for each ignored setting.

    Raises ConfigError if a value is invalid.
    """
    values, ignored = _read(source, text)
    for field in [field for field in values if _BY_FIELD[field].own]:
        setting = _BY_FIELD[field]
        if str(values.pop(field)) != setting.default:
            ignored.append(f"{setting.place} is a node's own setting and cannot be set by a ring")
    for field, value in values.items():
        check_value(_BY_FIELD[field], value, source)
    return Layer(source, values), ignored


def _read(source: str, text: bytes) -> tuple[dict[str, object], list[str]]:
    """The values by field, and a message for each unknown name."""
    if len(text) > MAX_TEXT_BYTES:
        raise ConfigError(f"{source}: larger than {MAX_TEXT_BYTES} bytes")
    try:
        # Without interpolation a % in a password is only a %.
        parsed = ConfigObj(
            text.decode("utf-8-sig").splitlines(),
            interpolation=False,
            list_values=True,
            configspec=configspec(),
            _inspec=False,
        )
    except ConfigObjError as error:
        # The message must not contain the line, which may hold a password.
        raise ConfigError(f"{source}: {str(error).replace(f' ({error.line!r})', '')}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source}: is not UTF-8 text") from error
    values: dict[str, object] = {}
    moved: dict[str, object] = {}
    unknown: list[str] = []
    for section, name, value in _entries(parsed, unknown):
        setting = _BY_PLACE.get((section, name))
        if setting is None:
            place = f"[{section}] {name}" if section else name
            unknown.append(f"unknown setting {place}{_similar(name)}")
        elif (section, name) in _MOVED:
            moved[setting.field] = value
        else:
            values[setting.field] = value
    return moved | values, unknown


def _entries(parsed: Mapping[str, object], unknown: list[str]) -> Iterator[tuple[str, str, object]]:
    for name, value in parsed.items():
        if not isinstance(value, dict):
            yield "", name, value
            continue
        if name not in _SECTIONS:
            unknown.append(f"unknown section [{name}]")
            continue
        for key, inner in value.items():
            if isinstance(inner, dict):
                unknown.append(f"unknown section [{name}] [[{key}]]")
            else:
                yield name, key, inner


def _similar(name: str) -> str:
    for setting in SETTINGS:
        if setting.name.lower() == name.lower():
            return f": did you mean {setting.place}?"
    return ""


def environment_layer(environment: Mapping[str, str]) -> Layer:
    """A layer from the variables OORT_...; ConfigError for an unknown variable.

    A misspelled variable must not be ignored.
    """
    by_name = {setting.environment: setting for setting in SETTINGS}
    values: dict[str, object] = {}
    for name, value in environment.items():
        if not name.startswith("OORT_") or name in RING_ENVIRONMENT:
            continue
        if name not in by_name:
            raise ConfigError(f"environment: unknown variable {name}")
        values[by_name[name].field] = _unquote(value)
    return Layer("environment", values)


def _unquote(text: str) -> str:
    """A value without the quotes of TOML."""
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return text
