"""Relaxers that misbehave in ways that only the harness's own tests need.

A structure is told by the number of its sites.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.core import Geometry, Relaxed, Status, UserError
from benchmarks.testing import Exits, Hangs, LosesAnAtom, Raises, ReturnsInput, ZeroForce

__all__ = ["Exits", "Hangs", "LosesAnAtom", "Raises"]


def geometry(n_sites, number=14):
    """A cubic cell of 4 Å with sites along its diagonal."""
    frac = np.repeat(np.arange(n_sites)[:, None] / n_sites, 3, axis=1)
    return Geometry(np.eye(3) * 4.0, frac, np.full(n_sites, number, dtype=np.int16))


class SegFaults(ReturnsInput):
    def misbehave(self):
        os.kill(os.getpid(), signal.SIGSEGV)


class IsKilled(ReturnsInput):
    def misbehave(self):
        os.kill(os.getpid(), signal.SIGKILL)


class Hungry:
    """Runs out of memory for batches of more than `most` sites in all."""

    def __init__(self, most):
        self.most = most

    def relax(self, structures):
        class OutOfMemoryError(RuntimeError):
            """Named like torch's."""

        if sum(len(s) for s in structures) > self.most:
            raise OutOfMemoryError("tried to allocate 2 GiB")
        return [Relaxed(status=Status.OK, structure=s) for s in structures]


class TooFew(ReturnsInput):
    def relax(self, structures):
        return super().relax([s for s in structures if len(s) != self.bad])


class NotRelaxed(ReturnsInput):
    def relax(self, structures):
        outcomes = super().relax(structures)
        return [None if len(o.structure) == self.bad else o for o in outcomes]


class Stretches:
    """Scales the cell by `factor`; `unsupported` for structures with `bad` sites."""

    def __init__(self, factor, bad=0, n_tokens=None, n_force_evals=None):
        self.factor, self.bad = factor, bad
        self.counts = {"n_tokens": n_tokens, "n_force_evals": n_force_evals}

    def relax(self, structures):
        return [self._one(s) for s in structures]

    def _one(self, structure):
        if len(structure) == self.bad:
            return Relaxed(status=Status.UNSUPPORTED, detail="too many sites")
        stretched = structure.copy()
        stretched.scale_lattice(structure.volume * self.factor**3)
        return Relaxed(status=Status.OK, structure=stretched, energy=self.factor, **self.counts)


class Sleeps(ReturnsInput):
    """Takes `seconds` for each structure."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def relax(self, structures):
        time.sleep(self.seconds * len(structures))
        return super().relax(structures)


class SlowToLoad(ReturnsInput):
    def __init__(self, seconds):
        super().__init__()
        time.sleep(seconds)


class Sees:
    """Answers with what it sees around it: settings and environment."""

    def __init__(self, **kwargs):
        s = kwargs.pop("settings")
        self.seen = f"{s.device} {s.seed} {s.fmax} {s.max_steps} {s.offline} {s.batch_size}"
        self.seen += f" {kwargs}"

    def relax(self, structures):
        sys.stdout.write("this line must not reach our stdout\n")
        names = ("OMP_NUM_THREADS", "HF_HUB_OFFLINE")
        env = " ".join(os.environ.get(name, "unset") for name in names)
        detail = f"{self.seen} {env}"
        return [Relaxed(status=Status.OK, structure=s, detail=detail) for s in structures]


class CannotLoad:
    def __init__(self, user_error=False):
        if user_error:
            raise UserError("weights.pt is missing: put it there")
        raise ValueError("weights of another model")

    def relax(self, structures):
        raise NotImplementedError


class DiesAtStart:
    """Leaves a mark per attempt in `folder`."""

    def __init__(self, folder):
        number = len(list(Path(folder).iterdir()))
        (Path(folder) / str(number)).touch()
        os._exit(7)

    def relax(self, structures):
        raise NotImplementedError


class HangsWithChild(Hangs):
    """Starts a process of its own before it hangs, and writes down both ids."""

    def __init__(self, bad, file):
        super().__init__(bad)
        self.file = file

    def misbehave(self):
        import subprocess

        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        Path(self.file).write_text(f"{os.getpid()} {child.pid}")
        super().misbehave()


def slow_calculator():
    """An ASE calculator without forces that takes 0.2 s per structure; tells who it is."""

    class Slow(ZeroForce):
        def calculate(self, *args, **kwargs):
            time.sleep(0.2)
            super().calculate(*args, **kwargs)

    sys.stderr.write(f"worker {os.getpid()}\n")
    return Slow()


def broken_calculator():
    """An ASE calculator that raises, whatever it is asked."""

    class Broken(ZeroForce):
        def calculate(self, *args, **kwargs):
            raise KeyError("parameters of Si")

    return Broken()


class Answers:
    """Answers each structure with `ok` and the fields given; what a model must not say, mostly."""

    def __init__(self, **fields):
        self.fields = fields

    def relax(self, structures):
        return [Relaxed(**{"status": Status.OK, "structure": s} | self.fields) for s in structures]


class RaisesUndecodable(ReturnsInput):
    """Raises with what Python makes of a file name that is not UTF-8."""

    def misbehave(self):
        raise FileNotFoundError(os.fsdecode(b"caf\xe9.npy") + "x" * 5_000_000)


class TooManySites(ReturnsInput):
    """Says that it could not decode an answer of 20,000 sites."""

    def relax(self, structures):
        from pymatgen.core import Lattice, Structure

        many = Structure(Lattice.cubic(100), ["H"] * 20_000, np.zeros((20_000, 3)))
        return [Relaxed(status=Status.INVALID, structure=many) for _ in structures]


class Leaks(ReturnsInput):
    """Has no memory left after `calls` structures, whatever they are."""

    def __init__(self, calls):
        super().__init__()
        self.left = calls

    def relax(self, structures):
        self.left -= len(structures)
        if self.left < 0:
            raise MemoryError
        return super().relax(structures)


class DiesOnce(ReturnsInput):
    """Somebody kills the worker while it has the first structure of `bad` sites."""

    def __init__(self, bad, file, signal_number):
        super().__init__(bad)
        self.file, self.signal_number = file, signal_number

    def misbehave(self):
        if not Path(self.file).exists():
            Path(self.file).touch()
            os.kill(os.getpid(), self.signal_number)


class WritesToSocket(ReturnsInput):
    """Writes bytes of its own where answers go."""

    def __init__(self, bad, data):
        super().__init__(bad)
        self.data = data

    def misbehave(self):
        os.write(int(sys.argv[1]), self.data)


class Prints(ReturnsInput):
    """Prints `megabytes` for each call."""

    def __init__(self, megabytes):
        super().__init__()
        self.megabytes = megabytes

    def relax(self, structures):
        for _ in range(self.megabytes):
            sys.stdout.write("z" * 2**20)
        return super().relax(structures)


class HoldsTheInterpreter(ReturnsInput):
    """Calls C code that does not let go of the interpreter's lock, and writes down who it is."""

    def __init__(self, bad, file):
        super().__init__(bad)
        self.file = file

    def misbehave(self):
        import ctypes

        Path(self.file).write_text(str(os.getpid()))
        ctypes.PyDLL(None).sleep(60)


class CountsLoads(ReturnsInput):
    """Leaves a mark in `folder` each time that it is loaded."""

    def __init__(self, folder):
        super().__init__()
        (Path(folder) / str(os.getpid())).touch()


class TakesTheWord(ReturnsInput):
    """Writes another driver's word into a file as soon as it is asked for anything."""

    def __init__(self, file):
        super().__init__()
        self.file = file

    def relax(self, structures):
        Path(self.file).write_text("another")
        return super().relax(structures)


class KillsItsDriver(ReturnsInput):
    """Kills the process that started it."""

    def misbehave(self):
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)


class SlowlyStretches(Stretches):
    """Takes 0.1 s for each structure, whose cell it stretches by an amount of its own."""

    def __init__(self):
        super().__init__(1.0)

    def _one(self, structure):
        time.sleep(0.1)
        self.factor = 1 + structure.volume / 10_000
        return super()._one(structure)


def removes_a_folder():
    """A relaxer that removes the folder that REMOVES names, once."""

    class Removes(ReturnsInput):
        def relax(self, structures):
            folder, _, mark = os.environ.get("REMOVES", "").partition(":")
            if folder and not Path(mark).exists():
                Path(mark).touch()
                shutil.rmtree(folder)
            return super().relax(structures)

    return Removes()
