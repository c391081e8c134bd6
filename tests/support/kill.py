"""Kill a real `dermalyze train` at random moments, give the same command again, and compare what comes out, bit for bit.

    python tests/support/kill.py --kills 500

One process imports everything once; each training is a fork of it (one thread, so that a fork is safe) that runs the command
line and is sent SIGKILL: half of them after a random time, half just before a random change to a file (opening for writing,
renaming, removing), so that the moments between two changes are met as well. Saving after every step, with an image cache of
its own a run, the kills fall into making the cache, training, saving states, best weights, metrics and history alike.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch

from dermalyze.models import torch_guard

torch_guard.install()
torch.set_num_threads(1)

import torch.utils.tensorboard

import dermalyze.stages.prepare
import dermalyze.stages.split
import dermalyze.stages.train  # noqa: F401 - all of them here and not in every fork
from dermalyze.cli import main as command_line
from dermalyze.core.run import Run

sys.path.append(str(Path(__file__).parent))
from training import outcome, tiny_run, tiny_set

KILLS_A_RUN = 8
PLAN: dict[str, Any] = {  # another part of the network, and another size of the images, in each epoch
    "strategy": {"kind": "gradual", "epochs": [1, 2], "stages": 1},
    "progressive": [{"epoch": 0, "scale": 0.5}, {"epoch": 1, "scale": 0.75}, {"epoch": 2, "scale": 1}],
}


def fork(body: Callable[[], None], log: Path) -> int:
    """Run `body` in a fork of this process; returns its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        body()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int) -> int:
    """Wait; the exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def count_changes(root: Path, note: Callable[[str], None]) -> None:
    """Call `note(file name)` before each change below `root`; for the rest of the process."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        if event in ("open", "os.rename", "os.remove") and str(arguments[0]).startswith(str(root)):
            note(Path(str(arguments[0])).name)

    sys.addaudithook(hook)


class Trials:
    """Runs to be killed in, under `root`."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.random = root, random.Random(seed)
        self.log = root / "log.txt"
        assert ended(fork(self._prepare, self.log)) == 0, self.log.read_text()
        started = time.monotonic()
        reference = self.fresh("reference")
        assert ended(fork(lambda: self._counted(reference), self.log)) == 0, self.log.read_text()
        self.seconds = time.monotonic() - started
        self.changes: dict[str, list[int]] = {}
        for number, name in enumerate(json.loads((root / "changes.json").read_text()), 1):
            self.changes.setdefault(place(name), []).append(number)
        self.expected = result(reference)
        self.places: Counter[str] = Counter()

    def _prepare(self) -> None:
        tiny_run(self.root / "base", tiny_set(self.root / "set"), **PLAN)

    def fresh(self, name: str) -> Path:
        return Path(shutil.copytree(self.root / "base", self.root / name / "run"))

    def _counted(self, run: Path) -> None:
        names: list[str] = []
        count_changes(run.parent, names.append)
        try:
            self._train(run)
        finally:
            (self.root / "changes.json").write_text(json.dumps(names))

    @staticmethod
    def _train(run: Path) -> None:
        os.environ["DERMALYZE_CACHE"] = str(run.parent / "cache")
        command_line(["train", str(run)])

    def _until(self, run: Path, number: int) -> None:
        seen: list[str] = []

        def note(name: str) -> None:
            seen.append(name)
            if len(seen) == number:
                (self.root / "place.txt").write_text(name)
                os.kill(os.getpid(), signal.SIGKILL)

        count_changes(run.parent, note)
        self._train(run)

    def attempt(self, run: Path) -> int:
        """One training that is killed at a random moment, unless it ends before; its exit code."""
        if self.random.random() < 0.5:
            number = self.random.choice(self.changes[self.random.choice(list(self.changes))])
            code = ended(fork(lambda: self._until(run, number), self.log))
            if code == -signal.SIGKILL:
                self.places[place((self.root / "place.txt").read_text())] += 1
            return code
        pid = fork(lambda: self._train(run), self.log)
        deadline = time.monotonic() + self.random.uniform(0, self.seconds)
        while time.monotonic() < deadline:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                break
            time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)
        code = ended(pid)
        if code == -signal.SIGKILL:
            self.places["any time"] += 1
        return code

    def killed_run(self, name: str, most: int) -> tuple[int, list[str]]:
        """Kill one run at most `most` times, then let it end; how often it was killed, and what was wrong."""
        run, kills, newest, faults = self.fresh(name), 0, -1, []
        code = -signal.SIGKILL
        while code == -signal.SIGKILL and kills < most:
            code = self.attempt(run)
            kills += code == -signal.SIGKILL
            step = newest_step(run)
            if step < newest:
                faults.append(f"lost: the newest state was {newest}, is {step}")
            newest = step
            faults += said(self.log)
        if code == -signal.SIGKILL:
            code = ended(fork(lambda: self._train(run), self.log))
            faults += said(self.log)
        if code != 0:
            faults.append(f"lost: ended with {code}: {self.log.read_text()[-300:]}")
        elif (found := result(run)) != self.expected:
            faults.append(f"differs: {', '.join(key for key in found if found[key] != self.expected[key])}")
        shutil.rmtree(run.parent)
        return kills, faults


def said(log: Path) -> list[str]:
    """A kill must damage nothing, so nobody may say that something is damaged."""
    return [f"lost: {line}" for line in log.read_text().splitlines() if "damaged" in line or "Traceback" in line]


def place(name: str) -> str:
    """What a file name belongs to."""
    known = {".bin": "image cache", "last-": "states", "best": "best weights", "metrics": "metrics", "history": "history"}
    return next((what for part, what in known.items() if part in name), "other files")


def newest_step(run: Path) -> int:
    return max((json.loads(path.read_text())["step"] for path in Run(run).state_records()[:1]), default=-1)


def result(root: Path) -> dict[str, Any]:
    """`outcome`, and which files there are."""
    files = [path.relative_to(root.parent) for path in root.parent.rglob("*") if "tensorboard" not in path.parts]
    return {**outcome(Run(root)), "files": sorted(map(str, files))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a kill spares what was written, flushed to a disk or not
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        trials = Trials(Path(folder), options.seed)
        print(f"one training: {trials.seconds:.1f} s, {sum(map(len, trials.changes.values()))} changes to files", flush=True)
        kills = runs = 0
        faults: list[str] = []
        while kills < options.kills:
            more, wrong = trials.killed_run(f"r{runs}", min(KILLS_A_RUN, options.kills - kills))
            kills, runs, faults = kills + more, runs + 1, faults + wrong
            for fault in wrong:
                print(f"run {runs}: {fault}", flush=True)
            if runs % 10 == 0:
                print(f"{kills} kills in {runs} runs", flush=True)
    lost, differed = (sum(fault.startswith(word) for fault in faults) for word in ("lost", "differs"))
    print(f"places: {json.dumps(dict(trials.places.most_common()))}")
    print(f"{kills} kills in {runs} runs: {lost} lost, {differed} differed")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
