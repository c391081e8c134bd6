"""Options of the commands under Data; their help and examples are in `table`."""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import dermalyze
from dermalyze.cli.command import JsonOption, call, command, show


class Balance(StrEnum):
    """Class balance of a synthetic set."""

    ham10000 = "ham10000"
    even = "even"


@command
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="ham10000, isic2018, isic2019, isic2020, bcn20000, ...")],
    out: Annotated[Path | None, typer.Argument(metavar="OUT", help="The folder; default: one of that name here.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Accept size and license without being asked.")] = False,
    as_json: JsonOption = False,
) -> None:
    def ask(question: str) -> bool:
        return sys.stdin.isatty() and typer.confirm(question, err=True)

    show(call("fetch", name, out, confirm=None if yes else ask), as_json)


@command
def synth(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    lesions: Annotated[
        int, typer.Option("--lesions", metavar="N", help="Number of lesions; each has one to several photographs.")
    ] = 400,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Same seed, same bytes.")] = 7,
    size: Annotated[str, typer.Option("--size", metavar="PX|HxW", help="Edge of a square, or height x width.")] = "150x200",
    difficulty: Annotated[
        float, typer.Option("--difficulty", metavar="N", min=0, max=1, help="0 (classes far apart) to 1 (hard).")
    ] = 0.3,
    balance: Annotated[Balance, typer.Option("--balance", help="Skewed as in HAM10000, or even.")] = Balance.ham10000,
    plant: Annotated[
        str | None, typer.Option("--plant", metavar="KIND", help="A known defect: crossing, duplicates, label-noise, shortcut.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    edges = re.fullmatch(r"(\d+)(?:x(\d+))?", size)
    if edges is None:
        raise dermalyze.UsageError(f"--size {size}: write one edge in pixels (96) or height x width (150x200)")
    size_px = (int(edges[1]), int(edges[2] or edges[1]))
    drawn = {"lesions": lesions, "seed": seed, "size_px": size_px, "difficulty": difficulty, "balance": balance.value}
    show(call("synth", out, **drawn, plant=plant), as_json)
