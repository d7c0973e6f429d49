"""The commands, a line each; `pamfn NAME ...` is `python -m pamfn.NAME ...`."""

import difflib
import re
import sys
from importlib import import_module
from pathlib import Path

from pamfn import __version__
from pamfn.command_line.process import say, start


def commands() -> dict[str, str]:
    """{name: description} of the commands: the modules beside this one whose docstring begins with their call."""
    texts = [file.read_text(encoding="utf-8") for file in sorted(Path(__file__).parent.glob("*.py"))]
    matches = [re.match(r'"""`python -m pamfn\.(\w+).*?`: (.*?)\.?("""|\n)', text) for text in texts]
    return {match[1]: match[2] for match in matches if match}


def main() -> None:
    """Run the command named by the first word."""
    start()
    name, *rest = sys.argv[1:] or ["--help"]
    known = commands()
    if name in ("-h", "--help"):
        width = max(map(len, known))
        lines = [f"  {name:<{width}}  {description}" for name, description in known.items()]
        say("\n".join(["pamfn COMMAND ...; every command has a --help of its own:", "", *lines]))
    elif name == "--version":
        say(f"pamfn {__version__}")
    elif name in known:
        sys.argv = [f"pamfn {name}", *rest]
        import_module(f"pamfn.{name}").main()
    else:
        close = difflib.get_close_matches(name, known, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise SystemExit(f"error: no command {name!r}.{hint} There are: {', '.join(known)}.")


if __name__ == "__main__":
    main()
