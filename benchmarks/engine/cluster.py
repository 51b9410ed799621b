"""The workers of a run on many machines: processes here, those of a scheduler, or jobs of a queue.

Dask starts, finds and counts them; `benchmarks.engine.parts_run` says what they do.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.core import UserError
from benchmarks.core.cli import check_installed
from benchmarks.engine.process import physical_cores

PATIENCE = 10.0
"""Seconds without a worker, or for the workers of an earlier command to end, until that is told."""
GPU = "GPU"
"""The resource of Dask workers that a part on a GPU takes one of."""
_SETTINGS = {
    "distributed.scheduler.worker-saturation": 1.0,  # parts wait at the scheduler
    "distributed.scheduler.work-stealing": False,
    "distributed.nanny.pre-spawn-environ.DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical",
    "distributed.admin.large-graph-warning-threshold": "1 TB",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DaskWorkers:
    """A connection to a scheduler and its workers."""

    client: Any
    most: int | None
    """The number of parts that they may ever relax at once; None if the scheduler is not ours."""
    device: str
    log: Callable[[str], None]

    @property
    def resources(self) -> dict[str, float]:
        """What each part takes of a worker."""
        return {GPU: 1} if self.device.startswith("cuda") else {}

    def count(self) -> int:
        """Count the parts that the workers which are there can relax at once.

        Raises:
            OSError: The scheduler does not answer.
        """
        identity = self.client.sync(self.client.scheduler.identity, n_workers=-1)
        workers = identity["workers"].values()
        if self.resources:
            return int(sum(worker["resources"].get(GPU, 0) for worker in workers))
        return int(sum(worker["nthreads"] for worker in workers))


@contextmanager
def connected(where: str, device: str, log: Callable[[str], None]) -> Iterator[DaskWorkers]:
    """Start or find workers, and print the address of the dashboard.

    Args:
        where: `local:N`, the address of a running scheduler (`tcp://…`, `tls://…`), or a YAML file
            with the settings of a cluster of dask-jobqueue.
        device: The device of the run; on a GPU each part takes one `GPU` of a worker's resources.
        log: Called with lines for the user.

    Raises:
        UserError: It is none of these, a package is missing, or nobody answers at the address.
    """
    check_installed("--cluster", ["distributed", "dask_jobqueue"], "cluster")
    import dask
    from distributed import Client

    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(_SETTINGS))
        cluster, most = _cluster(where, device)
        if not isinstance(cluster, str):
            stack.callback(_close, cluster)
        try:
            client = Client(cluster, set_as_default=False, timeout=PATIENCE)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"--cluster {where}: no scheduler answers ({error})") from error
        stack.callback(client.close)
        log(f"dashboard: {client.dashboard_link}")
        yield DaskWorkers(client=client, most=most, device=device, log=log)


def _close(cluster: Any) -> None:
    """End the workers; those that do not hear of it end without a scheduler."""
    with suppress(TimeoutError):
        cluster.close(timeout=3 * PATIENCE)


def _cluster(where: str, device: str) -> tuple[Any, int | None]:
    """Give a cluster of Dask or the address of its scheduler, and the most parts at once."""
    kind, _, number = where.partition(":")
    if kind == "local" and number.isdecimal() and int(number) > 0:
        return _local_cluster(int(number), device), int(number)
    if kind in ("tcp", "tls"):
        return where, None
    path = Path(where)
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"--cluster {where}: write local:N, tcp://HOST:PORT or a file slurm.yaml")
    return _queued_cluster(path, device)


def _local_cluster(n_workers: int, device: str) -> Any:
    """Start processes on this machine, which nobody outside it can reach."""
    from distributed import Nanny, Scheduler, SpecCluster

    n_gpus = 0
    if device.startswith("cuda"):
        import torch

        n_gpus = torch.cuda.device_count()
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, physical_cores() // n_workers))
    here = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    workers = {}
    for number in range(n_workers):
        env = {"OMP_NUM_THREADS": threads}
        if n_gpus > 1 and device == "cuda":
            env["CUDA_VISIBLE_DEVICES"] = str(number % n_gpus)
        options = here | {
            "nthreads": 1,
            "env": env,
            "memory_limit": 0,
            "silence_logs": logging.CRITICAL,
        }
        if n_gpus:
            options["resources"] = {GPU: 1}
        workers[number] = {"cls": Nanny, "options": options}
    scheduler = {"cls": Scheduler, "options": here | {"dashboard": True, "port": 0}}
    return SpecCluster(workers, scheduler, silence_logs=logging.CRITICAL)


def _queued_cluster(path: Path, device: str) -> tuple[Any, int]:
    """Start a cluster whose workers are jobs, which come and go with the work.

    The file has the layout of dask-jobqueue's own (`jobqueue: {slurm: {cores: …}}`), and beside it
    `adapt: {minimum_jobs: …, maximum_jobs: …}`.
    """
    import dask_jobqueue
    from dask_jobqueue.local import LocalCluster

    kinds = {
        name.removesuffix("Cluster").lower(): getattr(dask_jobqueue, name)
        for name in dir(dask_jobqueue)
        if name.endswith("Cluster") and name != "JobQueueCluster"
    } | {"local": LocalCluster}
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        ((kind, settings),) = config["jobqueue"].items()
        limits = {"minimum_jobs": 0, "maximum_jobs": 1} | config.get("adapt", {})
        settings = {name.replace("-", "_"): value for name, value in settings.items()}
        per_job = int(settings.get("processes" if device.startswith("cuda") else "cores") or 1)
        cluster = kinds[kind](**settings)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is no YAML ({' '.join(str(error).split())})") from error
    except KeyError as error:
        names = ", ".join(sorted(kinds))
        raise UserError(f"{path}: {error} is not there or not known; kinds: {names}") from error
    except (TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: is not `jobqueue: {{slurm: {{cores: …, memory: …}}}}` ({reason})"
        ) from error
    cluster.adapt(**limits)
    return cluster, int(limits["maximum_jobs"]) * per_job
