"""The contents of a package as text, so that packages of different tools can be compared.

    of_deb(path), of_rpm(path)      the metadata and files of a built package
    of_fpm(words, root)             the same from an fpm command line and the root that it packs

Each fact is a line, sorted within its kind: name, version, architecture, relations, configuration
files, scripts (named by the equal file of the tree), and files with mode and owner.  Directories
that belong to no package are left out, and so are facts that a tool adds to every package
(rpmlib(...), /bin/sh).  The version and the architecture are replaced by VERSION and ARCHITECTURE.
The modules of oort are one line, and its .proto files another; `modules` gives their names.
"""

from __future__ import annotations

import io
import re
import stat
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = "/usr/lib/oort/"
OWN_DIRECTORIES = ("/usr/lib/oort", "/usr/share/doc/oortd", "/usr/share/licenses/oortd")
SCRIPT_FOLDERS = ("debian", "rpm")
# dpkg's names for fpm's and rpm's script names.
SLOTS = {
    "--before-install": "preinst",
    "--after-install": "postinst",
    "--before-remove": "prerm",
    "--after-remove": "postrm",
}


@dataclass
class Contents:
    name: str = ""
    version: str = ""
    architecture: str = ""
    relations: list[str] = field(default_factory=list)
    configuration: list[str] = field(default_factory=list)
    # The text of each script, by dpkg's name of the script.
    scripts: dict[str, str] = field(default_factory=dict)
    # "mode owner:group" and the target of a link, by path.
    files: dict[str, str] = field(default_factory=dict)

    def modules(self) -> list[str]:
        """The package's modules, as paths from the root of the tree."""
        return sorted(
            path.removeprefix(LIBRARY) for path in self.files if path.endswith((".py", ".proto"))
        )

    def text(self) -> str:
        lines = [f"name {self.name}", f"version {self.version}"]
        lines.append(f"architecture {self.architecture}")
        lines += sorted(self.relations)
        lines += sorted(f"configuration {path}" for path in self.configuration)
        lines += sorted(f"{slot} {_tree_name(text)}" for slot, text in self.scripts.items())
        lines += sorted(set(self._file_lines()), key=lambda line: line.split()[2])
        text = "\n".join(lines) + "\n"
        for value, word in ((self.version, "VERSION"), (self.architecture, "ARCHITECTURE")):
            text = text.replace(value, word)
        upstream = self.version.rpartition("-")[0]
        return re.sub(rf"oort-{re.escape(upstream)}\.dist-info", "oort-VERSION.dist-info", text)

    def _file_lines(self) -> Iterator[str]:
        for path, about in self.files.items():
            in_library = path.startswith(LIBRARY + "oort/")
            if in_library and path.endswith((".py", ".proto")):
                yield f"{about} {LIBRARY}oort/**{Path(path).suffix}"
            elif in_library and about.startswith("d"):
                yield f"{about} {LIBRARY}oort/**/"
            else:
                yield f"{about} {path}"


def _tree_name(text: str) -> str:
    """The name of the file of the tree that equals a script."""
    for folder in SCRIPT_FOLDERS:
        for path in sorted((ROOT / folder).iterdir()):
            if path.read_text("utf-8").strip() == text.strip():
                return f"{folder}/{path.name}"
    return "a script that is not in the tree"


def _about(mode: int, owner: str, target: str = "") -> str:
    kind = "l" if target else "d" if stat.S_ISDIR(mode) else "-"
    shown = "----" if target else f"{mode & 0o7777:04o}"
    return f"{kind}{shown} {owner}"


def _keep(path: str, directory: bool) -> bool:
    return not directory or any(
        path == own or path.startswith(f"{own}/") for own in OWN_DIRECTORIES
    )


def _relations(kind: str, listed: Iterable[str]) -> list[str]:
    """A line for each relation, with its version as `>= x`.

    The version of the C library is left out, because it depends on the compiler.
    """
    found = []
    for one in listed:
        text = re.sub(r"\((>=|=) ([^)]*)\)", r"\1 \2", one.strip())
        text = re.sub(r"^libc6 >= .*|^libc\.so\.6\(GLIBC_.*", "the C library's version", text)
        if text and not text.startswith(("rpmlib(", "/bin/sh", "config(")):
            found.append(f"{kind} {text}")
    return found


def of_deb(path: Path) -> Contents:
    control = _tar("--ctrl-tarfile", path)
    fields: dict[str, str] = {}
    for line in _member(control, "control").splitlines():
        name, colon, value = line.partition(": ")
        if colon and not line.startswith(" "):
            fields[name] = value
    found = Contents(fields["Package"], fields["Version"], fields["Architecture"])
    for kind in ("Depends", "Recommends", "Suggests", "Conflicts", "Provides", "Replaces"):
        found.relations += _relations(kind.lower(), fields.get(kind, "").split(","))
    names = {member.name.removeprefix("./") for member in control}
    if "conffiles" in names:
        found.configuration = _member(control, "conffiles").split()
    for name in ("preinst", "postinst", "prerm", "postrm"):
        if name in names:
            found.scripts[name] = _member(control, name)
    for member in _tar("--fsys-tarfile", path):
        name = "/" + member.name.removeprefix("./").strip("/")
        if _keep(name, member.isdir()):
            mode = member.mode | (stat.S_IFDIR if member.isdir() else 0)
            # fpm's archives have only numbers of owners; nfpm's have names too.
            owner = f"{_name(member.uid)}:{_name(member.gid)}"
            found.files[name] = _about(mode, owner, member.linkname)
    return found


def _name(number: int) -> str:
    return "root" if number == 0 else str(number)


def _tar(option: str, path: Path) -> tarfile.TarFile:
    done = subprocess.run(["dpkg-deb", option, str(path)], stdout=subprocess.PIPE, check=True)
    return tarfile.open(fileobj=io.BytesIO(done.stdout))


def _member(archive: tarfile.TarFile, name: str) -> str:
    names = archive.getnames()
    file = archive.extractfile(name if name in names else f"./{name}")
    assert file is not None
    return file.read().decode()


def _rpm(path: Path, form: str) -> list[str]:
    words = ["rpm", "-qp", "--nosignature", "--qf", form, str(path)]
    return subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()


def of_rpm(path: Path) -> Contents:
    (head,) = _rpm(path, "%{NAME} %{VERSION}-%{RELEASE} %{ARCH}\n")
    found = Contents(*head.split())
    tags = {"depends": "REQUIRE", "recommends": "RECOMMEND", "suggests": "SUGGEST"}
    for kind, tag in tags.items():
        form = f"[%{{{tag}NAME}} %{{{tag}FLAGS:depflags}} %{{{tag}VERSION}}\n]"
        listed = (" ".join(line.split()) for line in _rpm(path, form))
        found.relations += _relations(kind, listed)
    scripts = {"preinst": "PREIN", "postinst": "POSTIN", "prerm": "PREUN", "postrm": "POSTUN"}
    for slot, tag in scripts.items():
        text = "\n".join(_rpm(path, f"%|{tag}?{{%{{{tag}}}}}|"))
        if text:
            found.scripts[slot] = text
    form = "[%{FILEMODES} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILEFLAGS:fflags}| %{FILENAMES}\n]"
    for line in _rpm(path, form):
        mode, owner, flags, name = line.split(maxsplit=3)
        if "c" in flags:
            assert "n" in flags, f"{name} is %config without noreplace"
            found.configuration.append(name)
        number = int(mode) & 0xFFFF
        target = "a link" if stat.S_ISLNK(number) else ""
        if _keep(name, stat.S_ISDIR(number)):
            found.files[name] = _about(number, owner, target)
    return found


def of_fpm(words: list[str], root: Path) -> Contents:
    """The contents from `words`, the split command line, and `root`, the argument of -C."""
    said: dict[str, list[str]] = {}
    flags = ("--force", "--no-auto-depends", "--deb-no-default-config-files")
    rest = iter(words[1:])
    inputs = []
    for word in rest:
        if word.startswith("-"):
            said.setdefault(word, []).append("" if word in flags else next(rest))
        else:
            inputs.append(word)
    (package_format,) = said["-t"]
    assert said["-s"] == ["dir"]
    assert said["-C"] == [str(root)]
    # Without these options fpm adds files of /etc and dependencies that it finds.
    assert "--no-auto-depends" in said
    assert package_format == "rpm" or "--deb-no-default-config-files" in said
    owners = {option.removeprefix(f"--{package_format}-"): said[option][0] for option in said}
    owner = f"{owners['user']}:{owners['group']}"
    found = Contents(
        said["--name"][0],
        f"{said['--version'][0]}-{said['--iteration'][0]}",
        said["--architecture"][0],
    )
    found.relations = _relations("depends", said["--depends"])
    found.relations += _relations("suggests", said.get("--deb-suggests", []))
    for tag in said.get("--rpm-tag", []):
        kind, _, name = tag.partition(": ")
        found.relations += _relations(kind.lower(), [name])
    found.configuration = said["--config-files"]
    for option, slot in SLOTS.items():
        for script in said.get(option, []):
            found.scripts[slot] = Path(script).read_text("utf-8")
    own = [str(path).rstrip("/") for path in said.get("--directories", OWN_DIRECTORIES)]
    for top in inputs:
        for path in [root / top, *sorted((root / top).rglob("*"))]:
            name = f"/{path.relative_to(root)}"
            directory = path.is_dir() and not path.is_symlink()
            if name.lstrip("/") in said.get("--exclude", []):
                continue
            if directory and not any(name == one or name.startswith(f"{one}/") for one in own):
                continue
            target = str(path.readlink()) if path.is_symlink() else ""
            found.files[name] = _about(path.lstat().st_mode, owner, target)
    return found
