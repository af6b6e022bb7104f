"""A plan from its options: the data set's size, the model's cost, rates measured or published, and the table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace

from hpcgender.commands.doctor import DOCTOR, EXAMINATION
from hpcgender.commands.launch import minutes
from hpcgender.commands.plan import PlanConfig
from hpcgender.data.order import check_world_size
from hpcgender.doctor import report
from hpcgender.doctor.report import Examination
from hpcgender.models.config import ModelConfig
from hpcgender.models.registry import family
from hpcgender.models.table import Cost, cost
from hpcgender.plan.estimate import Estimate, Rates, Work, estimate, spread
from hpcgender.plan.figures import DECODED_PER_CORE, GPUS, RESNET50_MACS, SQUEEZE
from shard_tools.base.errors import UserError
from shard_tools.base.text import byte_size, duration, plural, print_facts
from shard_tools.manifest import read_manifest


def plan(config: PlanConfig) -> None:
    """Prints what a training takes."""
    config.check()
    examined = examination(config)
    costs = cost(ModelConfig(model=config.model, width=config.width), config.image_size)
    rates = measured(config, examined, costs) if examined else published(config, costs)
    on_gpu = examined is None or examined.device != "cpu"
    work = work_of(config, costs, examined, on_gpu)
    check_batches(config, work)
    found = estimate(work, rates)
    if config.json:
        print(json.dumps(asdict(found), indent=1))
    else:
        show(config, work, rates, found, examined)


def examination(config: PlanConfig) -> Examination | None:
    """The examination to plan from; None if published figures of --gpu are to be used. UserError if there is neither.

    One that is named is used; that of the last examination here if it has seen the GPU that is asked for.
    """
    if config.examination:
        named = report.read(config.examination)
        if config.gpu and not is_of(named, config.gpu):
            raise UserError(f"--gpu {config.gpu}: {config.examination} is of {named.device}: give one of the two")
        return named
    path = DOCTOR / EXAMINATION
    found = report.read(path) if path.exists() else None
    if found and config.gpu and not is_of(found, config.gpu):
        found = None
    if found and found.number("step", "images_per_s") is None:
        found = None
    if not found and not config.gpu:
        raise UserError(f"{path} has no measured speed: run hpcgender doctor on such a node, or give --gpu")
    return found


def is_of(examined: Examination, gpu: str) -> bool:
    """Whether an examination has seen such a GPU."""
    return gpu.lower() in examined.device.lower().replace(" ", "")


def measured(config: PlanConfig, examined: Examination, costs: Cost) -> Rates:
    """Rates from an examination, scaled by operations where it timed another model or size. UserError without any."""
    numbers = [examined.number(check, "images_per_s") for check in ("step", "loader", "decode")]
    if any(number is None for number in numbers):
        raise UserError("the examination has no measured speed: see what is red in it, and examine again")
    step, loader, decode = (number or 0.0 for number in numbers)
    same = is_of_model(examined, config)
    low, high = 1.0, 1.0
    if not same:
        timed = cost(ModelConfig(model=examined.model), examined.image_size)
        step *= timed.macs / costs.macs
        low, high = spread_of(costs, timed, costs.macs / timed.macs)
        pixels = (examined.image_size / config.image_size) ** 2
        loader, decode = loader * min(1.0, pixels), decode * min(1.0, pixels)
    reach = "across nodes" if config.nodes > 1 else "within a node"
    threads = 1.0 if examined.device == "cpu" else examined.cores_per_process
    when = f"hpcgender doctor on {', '.join(examined.hosts)} ({examined.device})"
    scaled = "" if same else f", scaled by operations from {examined.model} at {examined.image_size} px"
    return Rates(
        step_images_per_s=step,
        loaded_images_per_s=loader,
        decoded_per_core=decode / threads,
        all_reduce_bytes_per_s=examined.number(f"all-reduce {reach}", "bytes_per_s"),
        low=0.8 if same else 0.6 * low,
        high=1.25 if same else 1.7 * high,
        source=f"measured by {when}{scaled}",
    )


def published(config: PlanConfig, costs: Cost) -> Rates:
    """Rates from published figures of a GPU, scaled by operations."""
    gpu = GPUS[config.gpu.lower()]
    squeeze = SQUEEZE if family(config.model) == "se_resnet" else 1.0
    rate = gpu.images_per_s * RESNET50_MACS / costs.macs * squeeze
    low, high = spread_of(costs, cost(ModelConfig(model="resnet50"), 224), costs.macs / RESNET50_MACS / squeeze)
    return Rates(
        step_images_per_s=rate,
        loaded_images_per_s=None,
        decoded_per_core=DECODED_PER_CORE * min(1.0, (112 / config.image_size) ** 2),
        all_reduce_bytes_per_s=None,
        low=0.6 * low,
        high=2.5 * high,
        source=f"published, {gpu.images_per_s:,.0f} images/s for ResNet-50 at 224 px: {gpu.source}",
    )


def is_of_model(examined: Examination, config: PlanConfig) -> bool:
    """Whether steps of this model, on images of this size, were timed: of width 1, as the doctor makes models."""
    return (examined.model, examined.image_size, 1) == (config.model, config.image_size, config.width)


def spread_of(costs: Cost, timed: Cost, times: float) -> tuple[float, float]:
    """`spread` of a model whose steps are taken to be `times` as long as those of the one that was timed."""
    alike = family(costs.name).removeprefix("se_") == family(timed.name).removeprefix("se_")
    operations, activations = costs.macs / timed.macs, costs.activation_bytes / timed.activation_bytes
    return spread(times, operations, activations, alike=alike)


def work_of(config: PlanConfig, costs: Cost, examined: Examination | None, on_gpu: bool) -> Work:
    """What is to be trained."""
    manifest = read_manifest(config.data)
    train = manifest.split("train")
    halved = on_gpu and (examined is None or examined.precision != "fp32")
    memory = examined.number("memory of cuda:0", "total_bytes") if examined else None
    if memory is None and config.gpu and on_gpu:
        memory = GPUS[config.gpu.lower()].memory_bytes
    processes = config.nodes * (config.gpus_per_node or (examined.processes if examined else 1))
    seen = examined and is_of_model(examined, config) and examined.batch_size * processes == config.batch_size
    return Work(
        train_images=min(config.limit or train.samples, train.samples),
        val_images=sum(validated.split(config.val_split).samples for validated in config.validated()),
        image_bytes=sum(shard.bytes for shard in train.shards) / train.samples,
        epochs=config.epochs,
        batch_size=config.batch_size,
        nodes=config.nodes,
        processes_per_node=config.gpus_per_node or (examined.processes if examined else 1),
        on_gpu=on_gpu,
        limit_s=60 * minutes(config.time, "--time"),
        weight_bytes=costs.weight_bytes,
        activation_bytes=costs.activation_bytes / (2 if halved else 1),
        memory_bytes=memory,
        peak_bytes=(examined.number("step", "peak_memory_bytes") or None) if examined and seen else None,
    )


def check_batches(config: PlanConfig, work: Work) -> None:
    """Raises UserError for a batch with which so many processes cannot train on so many images."""
    check_world_size(work.processes, config.batch_size)
    if work.train_images < config.batch_size:
        images = plural(work.train_images, "image")
        raise UserError(f"train in {config.data} has {images}, fewer than --batch-size {config.batch_size}")


def show(config: PlanConfig, work: Work, rates: Rates, found: Estimate, examined: Examination | None) -> None:
    """Prints the estimate."""
    device = "GPU" if work.on_gpu else "process"

    def between(seconds: float) -> str:
        return f"{duration(seconds)} ({duration(found.low * seconds)} to {duration(found.high * seconds)})"

    each = work.batch_size / work.processes
    facts = {
        "an epoch": f"{between(found.epoch_s)}, of which validation {duration(found.validation_s)}",
        plural(config.epochs, "epoch"): between(found.total_s),
        f"{device} hours": f"{found.device_hours:,.1f} ({found.low * found.device_hours:,.1f} to "
        f"{found.high * found.device_hours:,.1f})",
        "speed": f"{found.images_per_s:,.0f} images/s, limited by {found.limited_by}",
        "storage": f"{byte_size(found.storage_bytes_per_s)}/s are read, in all",
        "cores": f"{found.cores_per_process:.1f} for each {device}, to decode",
        "memory": f"{byte_size(found.memory_bytes)} for each {device}, with {plural(round(each), 'image')}",
        "checkpoints": f"{byte_size(found.checkpoint_bytes)} on disk",
        "requeues": f"{found.requeues or 'none'}, at {config.time} a job",
        "from": found.source,
    }
    if work.peak_bytes is not None:
        facts["memory"] += ", as measured"
    if found.fits is False:
        remedy = "give a smaller --batch-size, more GPUs, or train with --accumulate"
        facts["memory"] += f": MORE than fits into its {byte_size(work.memory_bytes or 0.0)}: {remedy}"
    if found.largest_batch is not None:
        facts["largest batch"] = largest(found.largest_batch, work)
        less = GPUS[config.gpu.lower()].less_memory_bytes if config.gpu and not examined else None
        if less:
            smaller = estimate(replace(work, memory_bytes=less), rates).largest_batch or 0
            facts["largest batch"] += f"; on one of {byte_size(less)} {smaller:,}"
    if unknown := list(unknowns(config, work, rates, examined)):
        facts["uncertain"] = "; ".join(unknown)
    if work.on_gpu:
        processes = plural(work.processes, "GPU")
    else:
        processes = plural(work.processes, "process without GPUs", "processes without GPUs")
    model = config.model if config.width == 1 else f"{config.model} of width {config.width:g}"
    images = plural(work.train_images, "image")
    print_facts(facts, title=f"{model} at {config.image_size} px, {images}, {processes}")


def largest(batch: int, work: Work) -> str:
    """The largest batch in words, with the memory that it is for."""
    images = plural(batch, "image") if batch else "none: not even one image fits"
    return f"{images}, as its activations are counted, in {byte_size(work.memory_bytes or 0.0)} for each GPU"


def unknowns(config: PlanConfig, work: Work, rates: Rates, examined: Examination | None) -> Iterator[str]:
    """What the estimate leaves out, and how to find out."""
    again = f"hpcgender doctor --model {config.model} --image-size {config.image_size}"
    if examined and not is_of_model(examined, config):
        nearer = f": examine with {again}" if config.width == 1 else ", as hpcgender doctor times models of width 1"
        yield f"{examined.model} at {examined.image_size} px was timed, so the range is wide{nearer}"
    if rates.loaded_images_per_s is None:
        yield f"ResNet-50 at 224 px was timed, so the range is wide: examine a node with {again}"
        yield "small images and batches use a GPU less than the published ones"
        yield "cores and storage are taken to keep up"
    if examined and 2 * work.batch_size < examined.batch_size * work.processes:
        images = plural(examined.batch_size, "image")
        yield f"steps of {images} a process were timed: examine with a smaller --batch-size"
    if work.processes > 1 and rates.all_reduce_bytes_per_s is None:
        yield f"the network is taken to keep up: examine it with hpcgender doctor --nodes {max(2, config.nodes)}"
