"""A run as an array of jobs for a queue, which share nothing but the file system."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.core import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class _Queue:
    header: str
    gpu: str
    part: str
    """The variable that holds the number of the part."""
    submit: str


_QUEUES = {
    "slurm": _Queue(
        header="""#SBATCH --job-name=benchmark
#SBATCH --array=1-{n_parts}
#SBATCH --ntasks=1 --cpus-per-task=1 --mem=8G
#SBATCH --time=24:00:00
#SBATCH --requeue --open-mode=append --output=part-%a.log
# At the end of its time a part stores what it has; submit the script again, and it goes on.
#SBATCH --signal=B:TERM@120""",
        gpu="#SBATCH --gres=gpu:1",
        part="SLURM_ARRAY_TASK_ID",
        submit="sbatch",
    ),
    "pbs": _Queue(
        header="""#PBS -N benchmark
#PBS -J 1-{n_parts}
#PBS -l select=1:ncpus=1:mem=8gb{gpu}
#PBS -l walltime=24:00:00
#PBS -j oe -r y""",
        gpu=":ngpus=1",
        part="PBS_ARRAY_INDEX",
        submit="qsub",
    ),
}
DEFAULT_PARTS = 16


def job_array(kind: str, module: str, argv: Sequence[str], *, device: str = "cpu") -> str:
    """Write the script of an array of jobs, each of which runs a part of a command.

    Args:
        kind: `slurm` or `pbs`, or with the number of parts `slurm:N`.
        module: The command: `benchmarks.run` or `benchmarks.dft`, which take `--shard`.
        argv: Its arguments, `--emit` among them, which is left out of the script.
        device: The device of the run.

    Raises:
        UserError: The queue is not known, or N is no number.
    """
    name, colon, number = kind.partition(":")
    if name not in _QUEUES or (colon and not (number.isdecimal() and int(number) > 0)):
        raise UserError(f"--emit {kind}: write slurm, pbs, slurm:N or pbs:N, with N parts")
    queue, n_parts = _QUEUES[name], int(number or DEFAULT_PARTS)
    on_gpu = device.startswith("cuda")
    header = queue.header.replace("{n_parts}", str(n_parts))
    if "{gpu}" in header:
        header = header.replace("{gpu}", queue.gpu if on_gpu else "")
    elif on_gpu:
        header += f"\n{queue.gpu}"
    at = next(i for i, word in enumerate(argv) if word.partition("=")[0] == "--emit")
    rest = [*argv[:at], *argv[at + (1 if "=" in argv[at] else 2) :]]
    command = shlex.join([sys.executable, "-m", module, *rest])
    return f"""#!/bin/sh
# {n_parts} parts of one run, on as many machines: {queue.submit} THIS_FILE
# Whatever is killed, the same script goes on. The part that ends last writes what is made of
# all parts.
{header}
cd {shlex.quote(str(Path.cwd()))} || exit 2
export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-1}}"
exec {command} --shard "${queue.part}/{n_parts}" """.rstrip()
