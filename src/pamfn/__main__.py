"""The commands, a line each; `pamfn NAME ...` is `python -m pamfn.NAME ...`."""

import difflib
import re
import sys
from importlib import import_module
from pathlib import Path

from pamfn import __version__
from pamfn.command_line.process import say, start


def commands() -> dict[str, str]:
    """{name: what it does} of the modules beside this one whose text begins with how they are called."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    begun = [
        re.match(r'"""`python -m pamfn\.(\w+).*?`: (.*?)\.?("""|\n)', file.read_text(encoding="utf-8"))
        for file in files
    ]
    return {match[1]: match[2] for match in begun if match}


def main() -> None:
    """Runs the command that is named first."""
    start()
    name, *rest = sys.argv[1:] or ["--help"]
    known = commands()
    if name in ("-h", "--help"):
        say("\n".join(["pamfn COMMAND ...; every command has a --help of its own:", "", *listed(known)]))
    elif name == "--version":
        say(f"pamfn {__version__}")
    elif name in known:
        sys.argv = [f"pamfn {name}", *rest]
        import_module(f"pamfn.{name}").main()
    else:
        close = difflib.get_close_matches(name, known, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise SystemExit(f"error: no command {name!r}.{hint} There are: {', '.join(known)}.")


def listed(known: dict[str, str]) -> list[str]:
    width = max(map(len, known))
    return [f"  {name:<{width}}  {what}" for name, what in known.items()]


if __name__ == "__main__":
    main()
