"""Completion with the tab key: `eval "$(nas-search -sc install=bash)"`.

Hydra's own scripts would run whatever file comes after `python`, and each question would take the
seconds that importing PyTorch takes. These know the programs by their files, and ask `outline`.
"""

import os
import re
from collections.abc import Iterable, Sequence

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from conf import outline
from conf.listing import LAUNCHERS, kinds
from nas.errors import UserError, unknown_name
from nas.nested import flat

COMMANDS = {
    "search": "nas-search",
    "retrain": "nas-retrain",
    "export": "nas-export",
    "profile_space": "nas-profile",
}
OPTIONS = {
    "--list": "names, a line on each",
    "--help": "a page of help",
    "--cfg": "the settings as they would be",
    "--multirun": "a run for each combination of values",
}

Candidates = list[tuple[str, str]]
"""Words that could stand there, each with a line on it."""


def candidates(program: str, line: str) -> Candidates:
    """What the last word of a command line could become.

    Args:
        program: Name of the entry point.
        line: Up to the cursor, with the command.
    """
    *before, word = re.split(r"\s+", line.lstrip()) or [""]
    if before and before[-1] == "--list":
        return _matching(word, kinds(program).items())
    if before and before[-1] == "--cfg":
        return _matching(word, {"job": "", "hydra": "", "all": ""}.items())
    if word.startswith("-"):
        return _matching(word, OPTIONS.items())
    key, equals, _ = word.partition("=")
    if equals:
        return _matching(word, ((f"{key}={value}", text) for value, text in _values(program, key)))
    return _names(program, word, [argument for argument in before if "=" in argument])


def _matching(word: str, found: Iterable[tuple[str, str]]) -> Candidates:
    return [(name, text) for name, text in found if name.startswith(word)]


def _values(program: str, key: str) -> Candidates:
    """What could be set; nothing where it is a number, or a file, which the shell knows."""
    if key in outline.groups(program):
        names = outline.options(key, program)
        return [(name, outline.summary(key, name)) for name in names]
    if key == "genotype":
        return list(outline.literal("nas/genotype/published.py", "ABOUT").items())
    if key == "hydra/launcher":
        return list(LAUNCHERS.items())
    if key == "device":
        return [("auto", ""), ("cpu", ""), ("cuda", "")]
    if isinstance(_settings(program, ())[0].get(key), bool):
        return [("true", ""), ("false", "")]
    return []


def _names(program: str, word: str, given: Sequence[str]) -> Candidates:
    """Groups and settings that begin with `word`; of nested settings the section alone."""
    found = {
        f"{group}=": f"see --list {outline.GROUPS[group]}" for group in outline.groups(program)
    }
    settings, chosen = _settings(program, given)
    for key in settings:
        parts, depth = key.split("."), word.count(".") + 1
        if len(parts) > depth:
            found.setdefault(".".join(parts[:depth]) + ".", "")
        elif key.removesuffix(".name") not in chosen:
            found.setdefault(f"{key}=", outline.meaning(program, key, chosen))
    return _matching(word, found.items())


def _settings(
    program: str, given: Sequence[str]
) -> tuple[dict[str, object], dict[str, str | None]]:
    """Settings by dotted key and option by group, with `given` if that is valid."""
    try:
        settings, chosen = outline.compose(program, given)
    except (HydraException, OmegaConfBaseException):  # it is not finished, or has a mistake
        settings, chosen = outline.compose(program, ())
    return flat(settings), chosen


def complete(program: str, question: str) -> str:
    """The answer to `-sc QUESTION`: a script to evaluate, or candidates, one a line.

    Raises:
        UserError: there is no such question.
    """
    verb, _, shell = question.partition("=")
    if verb not in ("install", "uninstall", "query") or shell not in INSTALL:
        raise unknown_name("shell", shell or question, INSTALL, "-sc install=")
    if verb == "uninstall":
        return UNINSTALL[shell]
    if verb == "install":
        files = " ".join(f'"{outline.ROOT / program}.py"' for program in COMMANDS)
        script = INSTALL[shell].replace("COMMANDS", " ".join(COMMANDS.values()))
        return script.replace("FILES", files)
    line = os.environ.get("COMP_LINE")
    if line is None:
        raise UserError("-sc query: COMP_LINE is not set; a shell asks this, not a user")
    return "\n".join(f"{word}\t{text}" for word, text in candidates(program, _shortened(line)))


def _shortened(line: str) -> str:
    """Without what comes before the program's name."""
    return re.sub(r"^\s*\S*python[0-9.]*\s+", "", line)


_BASH = r"""
_nas_complete() {
    local line=${COMP_LINE:0:COMP_POINT} command=$1 file
    if [[ ${1##*/} == python* ]]; then
        command=
        for file in FILES; do
            [[ ${COMP_WORDS[1]} -ef $file ]] && command="$1 ${COMP_WORDS[1]}"
        done
        [[ -n $command && $COMP_CWORD -gt 1 ]] || return
    fi
    local word=${line##*[[:space:]]} IFS=$'\n'
    COMPREPLY=($(IFS=' '; COMP_LINE=$line $command -sc query=bash 2>/dev/null | cut -f 1))
    if [[ $word == *=* && $COMP_WORDBREAKS == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%%=*}="}")
    fi
    [[ ${COMPREPLY[0]} == *[.=] ]] && compopt -o nospace 2>/dev/null
}
complete -o default -F _nas_complete COMMANDS python python3
"""
_ZSH = r"""
_nas_complete() {
    local line="${(j: :)${words[1,CURRENT]}}" command="${words[1]}" file
    if [[ ${command:t} == python* ]]; then
        command=
        for file in FILES; do
            [[ ${words[2]} -ef $file ]] && command="${words[1]} ${words[2]}"
        done
        [[ -n $command && $CURRENT -gt 2 ]] || { _default; return }
    fi
    local -a found plain open
    found=("${(@f)$(COMP_LINE=$line ${=command} -sc query=zsh 2>/dev/null)}")
    found=("${(@)found:#}")
    (( $#found )) || { compset -P '*='; _files; return }
    open=("${(@M)found:#*[.=]$'\t'*}") plain=("${(@)found:#*[.=]$'\t'*}")
    open=("${(@)open//:/\\:}") plain=("${(@)plain//:/\\:}")
    open=("${(@)open//$'\t'/:}") plain=("${(@)plain//$'\t'/:}")
    (( $#open )) && _describe settings open -S ''
    (( $#plain )) && _describe values plain
}
(( $+functions[compdef] )) || { autoload -Uz compinit; compinit }
compdef _nas_complete COMMANDS python python3
"""
_FISH = r"""
function _nas_command
    set -l words (commandline -opc)
    if not string match -q 'python*' (basename $words[1])
        echo $words[1]
        return
    end
    test (count $words) -gt 1; or return 1
    set -l script (realpath $words[2] 2>/dev/null)
    contains -- "$script" FILES; and printf '%s\n' $words[1..2]
end
function _nas_complete
    set -l command (_nas_command)
    set -lx COMP_LINE (commandline -cp)
    set -l found ($command -sc query=fish 2>/dev/null)
    set -l pair (string split -m 1 = -- (commandline -ct))
    if test -n "$found"
        printf '%s\n' $found
    else if test (count $pair) -gt 1
        printf "$pair[1]=%s\n" (__fish_complete_path $pair[2])
    end
end
for command in COMMANDS python python3
    complete -c $command -n _nas_command -f -a '(_nas_complete)'
end
"""
INSTALL = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
_NAMES = f"{' '.join(COMMANDS.values())} python python3"
UNINSTALL = {
    "bash": f"complete -r {_NAMES}; unset -f _nas_complete",
    "zsh": f"compdef -d {_NAMES}; unfunction _nas_complete",
    "fish": f"for command in {_NAMES}; complete -e -c $command; end; functions -e _nas_complete",
}
