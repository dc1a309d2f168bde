"""The processes of a training job: one a device, started by torchrun or by SLURM; without them, one.

    torchrun --nproc-per-node 2 -m boqsa train RECIPE --out RUN
    srun boqsa train RECIPE --out RUN          # with --ntasks-per-node in the job

Fabric joins them (DistributedDataParallel; gloo on CPUs, NCCL on NVIDIA GPUs). What a step computes does not depend on
how many there are, but for rounding: the batch of the recipe is that of all processes together, every random draw
belongs to a place in it (but for dropout's, `boqsa.training.draws`), and gradients are averaged over equal shares.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy

from boqsa.errors import MachineError, RecipeError
from boqsa.recipes import Recipe
from boqsa.training.machine import accelerator

# Fabric tells the precision of every Fabric that is made, which stands in the recipe, and greets every process.
for _name in ("rank_zero", "distributed"):
    logging.getLogger(f"lightning_fabric.utilities.{_name}").setLevel(logging.WARNING)

_PRECISION: dict[str, Literal["32-true", "bf16-mixed"]] = {"fp32": "32-true", "bf16": "bf16-mixed"}


class Processes(NamedTuple):
    """How many were started."""

    per_node: int
    nodes: int

    @property
    def total(self) -> int:
        """On all nodes."""
        return self.per_node * self.nodes


def started_processes() -> Processes:
    """What torchrun or SLURM's `srun` says in the environment; one process where neither started this one.

    Raises:
        RecipeError: if SLURM started several but does not say how many on each node.
    """
    if torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
        per_node = int(os.environ["LOCAL_WORLD_SIZE"])
        return Processes(per_node, int(os.environ["WORLD_SIZE"]) // per_node)
    tasks = int(os.environ.get("SLURM_NTASKS", "1"))
    is_interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    # A batch script has the variables of its job, but only what `srun` starts is one of several.
    if "SLURM_STEP_ID" not in os.environ or tasks == 1 or is_interactive:
        return Processes(1, 1)
    if "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise RecipeError(
            f"SLURM started {tasks} tasks, but not a stated number on each node; "
            "ask for them with --nodes and --ntasks-per-node, one task a GPU."
        )
    return Processes(int(os.environ["SLURM_NTASKS_PER_NODE"]), int(os.environ["SLURM_NNODES"]))


def join_processes(recipe: Recipe) -> Fabric:
    """Fabric for the recipe's device and precision, with all processes of the job, which wait for each other here.

    Raises:
        RecipeError: if this machine lacks the device, or the batch cannot be shared out equally.
    """
    settings = recipe.train
    device, processes = accelerator(settings), started_processes()
    pieces = processes.total * settings.accumulate
    if settings.batch_size % pieces:
        several = f"{processes.total} processes" + (f" x {settings.accumulate} pieces" * (settings.accumulate > 1))
        raise RecipeError(
            f"train.batch_size {settings.batch_size} is that of all processes together, and cannot be shared by "
            f"{several}; choose a multiple of {pieces}."
        )
    precision = _PRECISION[settings.precision]
    if processes.total == 1:
        # Its own environment: inside a job of SLURM, Fabric would take this process for one of the job's tasks.
        return Fabric(accelerator=device, devices=1, precision=precision, plugins=[LightningEnvironment()])
    strategy = DDPStrategy(
        gradient_as_bucket_view=True,  # one copy of the gradients instead of two
        find_unused_parameters=recipe.model.gradient == "implicit",  # it gives learned queries no gradient at all
    )
    fabric = Fabric(
        accelerator=device,
        devices=processes.per_node,
        num_nodes=processes.nodes,
        strategy=strategy,
        precision=precision,
    )
    fabric.launch()
    return fabric


def rank_and_count() -> tuple[int, int]:
    """Which of the joined processes this one is, and how many there are; (0, 1) where none were joined."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def speaks_for_all() -> bool:
    """Whether this process says what every process of its job would: the first one; the first of each node, as long as
    they have not joined. Nodes may find different things, and the processes of one node do not."""
    if rank_and_count()[1] > 1:
        return rank_and_count()[0] == 0
    place = "LOCAL_RANK" if torch.distributed.is_torchelastic_launched() else "SLURM_LOCALID"
    try:
        return started_processes().total == 1 or os.environ.get(place, "0") == "0"
    except RecipeError:  # what SLURM says is not enough: each process finds that
        return os.environ.get(place, "0") == "0"


def leave_processes(*, in_step: bool) -> None:
    """Part from the other processes of the job, if there are any: the threads that talk to them would abort the exit.

    Args:
        in_step: Whether all leave now. Where something went wrong NCCL would wait for the others, and is left alone.
    """
    if rank_and_count()[1] > 1 and (in_step or torch.distributed.get_backend() == "gloo"):
        torch.distributed.destroy_process_group()


def agreement_group(fabric: Fabric) -> "torch.distributed.ProcessGroup | None":
    """A group in which the processes agree by way of the CPU, so that the accelerator is not waited for; None alone."""
    return torch.distributed.new_group(backend="gloo") if fabric.world_size > 1 else None


def any_process(asks: bool, group: "torch.distributed.ProcessGroup | None") -> bool:
    """Whether any process of the group asks; they wait for each other, and all are told the same."""
    if group is None:
        return asks
    votes = torch.tensor(int(asks))
    torch.distributed.all_reduce(votes, op=torch.distributed.ReduceOp.MAX, group=group)
    return bool(votes)


def all_have(number: int, group: "torch.distributed.ProcessGroup | None") -> bool:
    """Whether all processes of the group have the same number; they wait for each other, and all are told the same."""
    if group is None:
        return True
    bounds = torch.tensor([number, -number])
    torch.distributed.all_reduce(bounds, op=torch.distributed.ReduceOp.MAX, group=group)
    return bool(bounds.sum() == 0)  # the largest is the smallest


@contextmanager
def missing_each_other() -> Iterator[None]:
    """Say in one line that another process of the job died: any exchange with it may fail, in any of its words.

    Raises:
        MachineError: in place of what gloo or NCCL raise.
    """
    try:
        yield
    except RuntimeError as error:
        words = str(error)
        is_lost = isinstance(error, torch.distributed.DistError) or "gloo" in words or "NCCL" in words
        if rank_and_count()[1] == 1 or not is_lost:
            raise
        raise MachineError(
            f"another process of this job is gone ({words.splitlines()[0]}); its own message says why. "
            "Start the same command again: it goes on from the last checkpoint."
        ) from None
