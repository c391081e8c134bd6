"""Write what comes from the table of commands: the reference of the command line and the stub of the public names.

python docs/generate.py            write docs/reference/cli.md (between its marks) and src/dermalyze/__init__.pyi
python docs/generate.py --check    only say which of them is out of date; exit code 1 if one is
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import dermalyze
from dermalyze.cli.program import program
from dermalyze.cli.table import COMMANDS, GROUPS, Command

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "cli.md"
STUB = ROOT / "src" / "dermalyze" / "__init__.pyi"


def usage(command: Command) -> str:
    """A command with its arguments, such as `dermalyze predict [MODEL] IMAGE...`."""
    words = ["dermalyze", command.name]
    for parameter in filter(is_argument, parameters(command)):
        word = parameter.metavar + ("..." if parameter.nargs == -1 and "..." not in parameter.metavar else "")
        words.append(word if parameter.required else f"[{word}]")
    return " ".join(words)


def is_argument(parameter: Any) -> bool:
    """Whether it is no option."""
    return bool(parameter.param_type_name == "argument")


def parameters(command: Command) -> list[Any]:
    """Arguments and options, as declared."""
    return list(program().commands[command.name].params)


def description(command: Command, parameter: Any) -> tuple[str, str]:
    """How an argument or option is written, and what it means, with its default."""
    parser = program().commands[command.name]
    written, meaning = parameter.get_help_record(parser.make_context(command.name, [], resilient_parsing=True))
    return (parameter.metavar if is_argument(parameter) else written), meaning.replace("[required]", "")


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def overview() -> str:
    """A table of commands for each group."""
    blocks = []
    for group in GROUPS:
        rows = [f"| `{cell(usage(c))}` | {c.help} | `dermalyze.{c.public}` |" for c in group.commands]
        blocks.append("\n".join([f"**{group.title}**", "", "| command | what it does | Python |", "|---|---|---|", *rows]))
    return "\n\n".join(blocks)


def options() -> str:
    """Every command with its arguments, options and examples."""
    blocks = []
    for command in COMMANDS.values():
        descriptions = [description(command, parameter) for parameter in parameters(command)]
        rows = [f"| `{cell(written)}` | {cell(meaning)} |" for written, meaning in descriptions]
        blocks.append(f"### {command.name}\n\n    {usage(command)}\n\n{command.help}")
        blocks.append("\n".join(["| argument or option | meaning |", "|---|---|", *rows]))
        blocks.append("\n".join(["```bash", *command.lines, "```"]))
    return "\n\n".join(blocks)


def page() -> str:
    """The page with its generated parts as they should be."""
    text = PAGE.read_text(encoding="utf-8")
    for name, content in (("overview", overview()), ("options", options())):
        start, end = f"<!-- generated: {name} -->", "<!-- end -->"
        text, replaced = re.subn(rf"{start}\n.*?{end}", lambda _, s=f"{start}\n{content}\n{end}": s, text, flags=re.S)
        if replaced != 1:
            raise SystemExit(f"{PAGE.name}: write {start} and {end} once, where this part belongs")
    return text


def stub() -> str:
    """Public names for type checkers, each imported from where it is defined."""
    plain: dict[str, list[str]] = defaultdict(list)
    imports = []
    for name, source in dermalyze._SOURCES.items():
        module, attribute = source.split(":")
        if attribute == name:
            plain[module].append(name)
        else:
            imports.append((module, 1, f"from dermalyze.{module} import {attribute} as {name}"))
    imports += [(module, 0, line_of(module, sorted(names))) for module, names in plain.items()]
    names = "".join(f'    "{name}",\n' for name in dermalyze.__all__)
    lines = ["# Written by docs/generate.py; do not edit.", "", *(line for *_, line in sorted(imports)), ""]
    return "\n".join([*lines, "__version__: str", "", f"__all__ = [\n{names}]", ""])


def line_of(module: str, names: list[str]) -> str:
    """One import, wrapped where it is long."""
    line = f"from dermalyze.{module} import {', '.join(names)}"
    return line if len(line) <= 128 else line.replace(" import ", " import (\n    ").replace(", ", ",\n    ") + ",\n)"


def main() -> None:
    """Write or check both files."""
    old = []
    for path, text in ((PAGE, page()), (STUB, stub())):
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            old.append(path.relative_to(ROOT))
            if "--check" not in sys.argv[1:]:
                path.write_text(text, encoding="utf-8")
    if old and "--check" in sys.argv[1:]:
        raise SystemExit(f"out of date: {', '.join(map(str, old))}; run: make reference")


if __name__ == "__main__":
    main()
