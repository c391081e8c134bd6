"""An image store whose reader is killed at one image; in a file of its own, so that worker processes can import it."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from dermalyze.data.store import ImageStore


@dataclass(frozen=True)
class DeadlyStore(ImageStore):
    """Kills the process that reads `victim`, unless that is the process `spared`.

    Attributes:
        victim: path.
        spared: process id.
        once: a file that, where it exists, is removed by the first reader to be killed; later ones live. None: always.
    """

    victim: str = ""
    spared: int = 0
    once: Path | None = None

    def read(self, path: str) -> bytes:
        if path == self.victim and os.getpid() != self.spared and (self.once is None or self.once.exists()):
            if self.once is not None:
                self.once.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(path)
