"""Bash completion, made from the programs' argument parsers.

The scripts complete options, the choices of options, commands, and the options and commands below
a command.  They are static and start no Python.  A word that is not an option completes to a
command where a command is expected, and otherwise to a file name.
"""

from __future__ import annotations

import argparse
import re
import shlex

from manual import Usage, commands, options

_SCRIPT = """\
# bash completion for {name}

{function}() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
    local command="" word
    COMPREPLY=()
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$word" in {commands}) command=$word; break ;; esac
    done
    case "$command $previous" in
{choices}    esac
    local words
    case "$command" in
{words}    esac
    if [[ $current == -* ]] || {{ [[ -z $command ]] && (( COMP_CWORD >= {commands_from} )); }}; then
        COMPREPLY=($(compgen -W "$words" -- "$current"))
    fi
    [[ ${{#COMPREPLY[@]}} -gt 0 ]] || COMPREPLY=($(compgen -f -- "$current"))
}}
complete -o filenames -F {function} {name}
"""


def _words(parser: argparse.ArgumentParser) -> list[str]:
    return [name for action in options(parser) for name in action.option_strings]


def _choices(command: str, parser: argparse.ArgumentParser) -> str:
    cases = []
    for action in options(parser):
        if action.choices is None:
            continue
        patterns = "|".join(shlex.quote(f"{command} {name}") for name in action.option_strings)
        words = " ".join(map(str, action.choices))
        cases.append(
            f'        {patterns}) COMPREPLY=($(compgen -W "{words}" -- "$current")); return ;;\n'
        )
    return "".join(cases)


def script(usage: Usage) -> str:
    """The completion script of a program."""
    name, parser = usage.program.name, usage.parser
    function = "_" + re.sub(r"\W", "_", name)
    choices = ""
    if parser is None:
        # The program writes its own help.  The options are in the text.  The commands are the words
        # that follow a file name in the synopsis.
        found = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", usage.text))
        found |= set(re.findall(r"^  [A-Z]+(?:\.[a-z]+)? ([a-z-]+)", usage.text, re.MULTILINE))
        top, below = sorted(found), {}
    else:
        below = dict(usage.commands)
        top = [*_words(parser), *below]
        choices = _choices("", parser)
    words = ""
    for command, inner in below.items():
        deeper = commands(inner)
        words += f"        {command}) words={shlex.quote(' '.join([*_words(inner), *deeper]))} ;;\n"
        choices += _choices(command, inner)
    words += f"        *) words={shlex.quote(' '.join(top))} ;;\n"
    return _SCRIPT.format(
        name=name,
        function=function,
        commands="|".join(below) or "''",
        choices=choices,
        words=words,
        # In a program's own synopsis the command comes after a file name.
        commands_from=1 if below else 2 if parser is None else 1000,
    )
