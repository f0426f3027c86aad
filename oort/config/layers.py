"""Layers of configuration, read from files, from rings and from the environment.

Texts are ConfigObj (INI with sections, no interpolation); TOML-style quoting of values is read as
well, and so are those of the original's names that mean a setting of ours.  What is unknown is an
error in a file and in the environment.  In what comes from a ring it is left out and reported: a
newer syndicate must not stop older nodes.
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

# The original's places of settings that stand elsewhere here.
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
    """Read a configuration file.  Unknown sections and keys are errors."""
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
    """A layer from a ring's configuration text, checked, and what of the text does not count."""
    values, ignored = _read(source, text)
    for field in [field for field in values if _BY_FIELD[field].own]:
        setting = _BY_FIELD[field]
        if str(values.pop(field)) != setting.default:
            ignored.append(f"{setting.place} is a node's own setting: no ring decides it")
    for field, value in values.items():
        check_value(_BY_FIELD[field], value, source)
    return Layer(source, values), ignored


def _read(source: str, text: bytes) -> tuple[dict[str, object], list[str]]:
    """Values by field, and what is unknown."""
    if len(text) > MAX_TEXT_BYTES:
        raise ConfigError(f"{source}: larger than {MAX_TEXT_BYTES} bytes")
    try:
        # interpolation=False: a % in a password is a %.
        parsed = ConfigObj(
            text.decode("utf-8-sig").splitlines(),
            interpolation=False,
            list_values=True,
            configspec=configspec(),
            _inspec=False,
        )
    except ConfigObjError as error:
        # Without the line itself: a password may be in it.
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
    """OORT_... variables.  One that means nothing is an error, a misspelling is not lost."""
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
    """What is left of a value written as in TOML: "oortstore" with its quotes."""
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return text
