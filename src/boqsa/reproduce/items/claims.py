"""Claims of the paper that have no table: each varies one thing, on the recipes of Table 7."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from boqsa.data.builtin import RENDERER
from boqsa.recipes import Recipe
from boqsa.reproduce.experiment import METRICS_OF_TASK, Arm, Experiment, Test
from boqsa.reproduce.items.tables import own_test
from boqsa.reproduce.mask_errors import builtin_masks
from boqsa.reproduce.mask_errors import mask_errors as grow
from boqsa.reproduce.methods import variant
from boqsa.reproduce.protocol import Protocol
from boqsa.reproduce.rows import Row
from boqsa.reproduce.scales import Scale

_MASKS = 256
_MASK_SIZE = 64
"""Images and pixels of `mask_errors`."""


def stability(scale: Scale) -> Experiment:
    """Sections 1, 2.2, 3.3: bi-level training needs less of warm-up and clipping."""
    arms = []
    for base in scale.recipes("shapestacks", "mixture"):
        for method in ("SA", "I-SA", "BO-SA", "BO-QSA"):
            for warmup in ("on", "off"):
                for clipping in ("on", "off"):
                    changes = {
                        **({"train.warmup_steps": "0"} if warmup == "off" else {}),
                        **({"train.clip_norm": "0"} if clipping == "off" else {}),
                    }
                    recipe = variant(base, method, changes)
                    test = replace(
                        own_test(recipe),
                        metrics=("failed", "ari_fg", "msc_fg", "update_spectral_norm"),
                        condition=f"warmup={warmup};clipping={clipping}",
                        last_alone=True,
                    )
                    arms.append(Arm(method=method, recipe=recipe, tests=(test,)))
    return Experiment(
        baseline="warmup=on;clipping=on",
        varies_conditions=True,
        item="stability",
        title="Stability: without warm-up, without clipping",
        first="BO-QSA",
        arms=tuple(arms),
        notes=(
            "failed is 1 where training stopped at a loss that is not a number, or ended with a model whose verdict is "
            "broken, collapsed or flat (`boqsa.training.diagnostics`); its mean over seeds is the failed share.",
        ),
    )


def noise(scale: Scale) -> Experiment:
    """A.3.1: annealed noise on the queries helps."""
    arms = []
    for base in scale.recipes("shapestacks", "mixture"):
        for share in (0.0, 0.1, 0.5):
            steps = round(share * base.train.steps)
            for perturbation in ("multiplicative",) if steps == 0 else ("multiplicative", "additive"):
                changes = {"train.sigma_steps": str(steps), "model.perturbation": perturbation}
                condition = f"sigma_steps={share:.0%};perturbation={perturbation if steps else 'none'}"
                arms.append(_one(variant(base, "BO-QSA", changes), "BO-QSA", condition))
    return Experiment(
        baseline="sigma_steps=0%;perturbation=none",
        varies_conditions=True,
        item="noise",
        title="Noise on the queries: none, 10 % and 50 % of the steps",
        arms=tuple(arms),
    )


def vq_weight(scale: Scale) -> Experiment:
    """B.3: the consistency loss works for small weights alone."""
    return Experiment(
        baseline="weight=0",
        varies_conditions=True,
        item="vq_weight",
        title="Weight of the VQ constraint",
        arms=_varied(
            scale.recipes("shapestacks", "mixture"),
            "BO-QSA",
            [
                ({"train.consistency_weight": weight}, f"weight={weight}")
                for weight in ("0", "0.001", "0.01", "0.1", "1")
            ],
        ),
    )


def iterations(scale: Scale) -> Experiment:
    """B.2: more training iterations lift I-QSA up to 7, and no further."""
    arms = []
    for base in scale.recipes("dogs", "transformer"):
        for count in (1, 3, 5, 7, 9, 11):
            recipe = variant(base, "I-QSA", {"model.iterations": str(count)})
            arms.append(_one(recipe, "I-QSA", f"training_iterations={count}"))
        arms.append(_one(variant(base, "BO-QSA"), "BO-QSA", f"training_iterations={base.model.iterations}"))
    return Experiment(
        baseline="training_iterations=3",
        varies_conditions=True,
        item="iterations",
        title="Training iterations of I-QSA",
        arms=tuple(arms),
    )


def dvae_kernel(scale: Scale) -> Experiment:
    """A.3.3: a dVAE kernel of 3 helps, and so do features of a CNN in place of the tokens."""
    settings: list[tuple[Mapping[str, str], str]] = [
        ({"model.dvae_kernel": "3"}, "dvae_kernel=3;features=image"),
        ({"model.dvae_kernel": "1"}, "dvae_kernel=1;features=image"),
        ({"model.dvae_kernel": "3", "model.features": "tokens"}, "dvae_kernel=3;features=tokens"),
    ]
    return Experiment(
        baseline="dvae_kernel=3;features=image",
        varies_conditions=True,
        item="dvae_kernel",
        title="Kernel of the dVAE, and what slots attend to",
        arms=_varied(scale.recipes("shapestacks", "transformer"), "BO-QSA", settings),
    )


def capacity(scale: Scale) -> Experiment:
    """Appendix C: a stronger encoder or decoder does not always give better objects."""
    arms = []
    for base in scale.recipes("shapestacks", "mixture"):
        model = base.model
        for part in ("encoder", "decoder"):
            channels = getattr(model, f"{part}_channels")
            for factor, name in ((0.5, "half"), (2, "double")):
                changed = ",".join(str(max(1, int(width * factor))) for width in channels)
                recipe = variant(base, "BO-QSA", {f"model.{part}_channels": changed})
                arms.append(_one(recipe, "BO-QSA", f"{part}={name}"))
        arms.append(_one(variant(base, "BO-QSA"), "BO-QSA", "both=same"))
    return Experiment(
        baseline="both=same",
        varies_conditions=True,
        item="capacity",
        title="Width of encoder and decoder",
        arms=tuple(arms),
    )


def more_objects(scale: Scale) -> Experiment:
    """Section 6, appendix C: queries are bound to their number, samples are not."""
    arms = []
    for base in scale.recipes("scenes", "mixture"):
        for method in ("SA", "BO-QSA"):
            recipe = variant(base, method)
            slots = recipe.model.num_slots
            tests = [_count_test(recipe, (2, 4), slots), _count_test(recipe, (5, 6), slots)]
            if method == "SA":
                tests.append(_count_test(recipe, (5, 6), 7))
            arms.append(Arm(method=method, recipe=recipe, tests=tuple(tests)))
    return Experiment(
        item="more_objects",
        title="Trained on 2 to 4 objects, tested on 5 and 6 (built-in scenes)",
        arms=tuple(arms),
        compared=(("SA", "BO-QSA"),),
        shown=("ari_fg", "msc_fg"),
    )


def difficulty(scale: Scale) -> Experiment:
    """B.4: the gain grows with the scene; and with how many slots, objects and steps is it seen at all?"""
    settings: list[tuple[Mapping[str, str], str]] = [
        ({}, "objects=2-4;slots=5;budget=1"),
        ({"model.num_slots": "8"}, "objects=2-4;slots=8;budget=1"),
        ({"model.num_slots": "8", "data.scene_objects": "5,6"}, "objects=5-6;slots=8;budget=1"),
        ({}, "objects=2-4;slots=5;budget=2"),
    ]
    arms = []
    for base in scale.recipes("scenes", "mixture"):
        for method in ("SA", "QSA", "BO-QSA"):
            for changes, condition in settings:
                more = _longer(base, 2) if condition.endswith("budget=2") else {}
                arms.append(_one(variant(base, method, {**changes, **more}), method, condition))
    return Experiment(
        varies_conditions=True,
        item="difficulty",
        title="Where the order of methods shows: more slots, more objects, twice the training (built-in scenes)",
        first="BO-QSA",
        arms=tuple(arms),
        shown=("ari_fg", "msc_fg"),
        notes=("budget=2 doubles the steps and every length in the schedules.",),
    )


def _longer(base: Recipe, factor: int) -> dict[str, str]:
    """The whole training drawn out in time: steps, warm-up, decay and noise."""
    lengths = ("steps", "warmup_steps", "half_life_steps", "sigma_steps")
    return {f"train.{name}": str(factor * getattr(base.train, name)) for name in lengths}


def mask_errors(scale: Scale) -> Experiment:
    """B.4: ARI-FG does not see how masks spill into the background. Nothing is trained, at either scale."""
    return Experiment(
        item="mask_errors",
        title="ARI-FG and MSC-FG of true masks that grow into the background",
        arms=(),
        varies_conditions=True,
        untrained=_mask_error_rows,
        figures=("mask_errors",),
        notes=(
            "The masks are the true ones of the built-in scenes, grown by so many pixels; no checkpoint is involved.",
            "background_given is the share of background pixels that went to objects.",
        ),
    )


def _mask_error_rows() -> list[Row]:
    masks = builtin_masks(_MASKS, image_size=_MASK_SIZE)
    return [
        Row(
            method="true masks",
            dataset="scenes",
            metric=metric,
            condition=f"grown={'all' if pixels is None else pixels}",
            seed=0,
            selection="last",
            protocol=Protocol(
                data="scenes",
                variant=f"renderer {RENDERER}",
                split="test",
                images=_MASKS,
                image_size=_MASK_SIZE,
                slots=None,
                masks=None,
                metric=metric,
            ).text,
            value=value,
        )
        for pixels, metric, value in grow(masks)
    ]


def differences(scale: Scale) -> Experiment:
    """What differs between the paper's text and the published code, one at a time (spec 1.3, 1.5, 1.7)."""
    settings: list[tuple[Mapping[str, str], str]] = [
        ({}, "setting=published"),
        ({"model.epsilon": "1e-8", "model.epsilon_form": "entry"}, "epsilon=1e-8"),
        ({"model.drop_path": "0"}, "drop_path=0"),
        ({"model.perturbation": "additive"}, "perturbation=additive"),
        ({"train.sigma_steps": "0"}, "sigma=0"),
        ({"model.iterations": "4"}, "iterations=4"),
    ]
    return Experiment(
        baseline="setting=published",
        varies_conditions=True,
        item="differences",
        title="Where the paper and its code differ",
        arms=_varied(scale.recipes("shapestacks", "mixture"), "BO-QSA", settings),
        notes=("iterations=4 reads Algorithm 1 as three steps without a graph and one more.",),
    )


def _varied(bases: Sequence[Recipe], method: str, settings: Sequence[tuple[Mapping[str, str], str]]) -> tuple[Arm, ...]:
    return tuple(
        _one(variant(base, method, changes), method, condition) for base in bases for changes, condition in settings
    )


def _one(recipe: Recipe, method: str, condition: str) -> Arm:
    return Arm(method=method, recipe=recipe, tests=(replace(own_test(recipe), condition=condition),))


def _count_test(recipe: Recipe, objects: tuple[int, int], slots: int) -> Test:
    """Held-out scenes with so many objects, and so many slots."""
    data = recipe.data
    if objects != data.scene_objects:
        data = replace(data, scene_objects=objects, scene_count=1)  # nothing is trained on them
    return Test(
        data=data,
        task="multi_object",
        metrics=METRICS_OF_TASK["multi_object"],
        condition=f"objects={objects[0]}-{objects[1]};slots={slots}",
        num_slots=None if slots == recipe.model.num_slots else slots,
        last_alone=True,
    )
