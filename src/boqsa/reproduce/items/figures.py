"""Figures 1 to 4, 6 and 7 to 17 of the paper, drawn from our own runs.

The paper's text names the subjects of Figures 7 to 17 in its captions alone; here each shows one data set, in the
order of the tables.
"""

from collections.abc import Callable
from dataclasses import replace

from boqsa.reproduce.experiment import BINDING_PREFIX, SEPARATION_METRICS, Arm, Experiment, Test
from boqsa.reproduce.items.tables import elsewhere, method_arms, own_test
from boqsa.reproduce.methods import METHODS, variant
from boqsa.reproduce.scales import Family, Scale

TEST_ITERATIONS = (1, 2, 3, 5, 7)
"""Ticks of Figure 2."""

BINDING_METRICS = (
    f"{BINDING_PREFIX}matched",
    *(
        f"{BINDING_PREFIX}{attribute}{what}"
        for attribute in ("position", "size", "colour", "kind", "true_colour", "true_position")
        for what in ("", "_chance", "_chance_high")
    ),
)

_BINDING_NOTE = (
    "binding_<attribute> is the normalised mutual information of slot and attribute over matched objects; _chance is "
    "its mean with slots permuted within each image, _chance_high the upper end of 95 % of them; binding_matched is "
    "the share of true objects that a slot covers with an IoU of 0.5 or more."
)

FOUND_OBJECTS: dict[str, tuple[str, Family]] = {
    "figure7": ("shapestacks", "mixture"),
    "figure8": ("objectsroom", "mixture"),
    "figure9": ("clevrtex_full", "mixture"),
    "figure10": ("ycb", "transformer"),
    "figure11": ("scannet", "transformer"),
    "figure12": ("coco", "transformer"),
    "figure13": ("birds", "transformer"),
    "figure14": ("dogs", "transformer"),
    "figure15": ("cars", "transformer"),
    "figure16": ("flowers", "transformer"),
    "figure17": ("ptr", "mixture"),
}
"""Figure -> what BO-QSA is trained on and shown on."""


def figure1(scale: Scale) -> Experiment:
    """What BO-QSA finds, on scenes and on photographs."""
    arms = []
    for dataset, family in (("shapestacks", "mixture"), ("dogs", "transformer")):
        arms += method_arms(scale.recipes(dataset, family), {"BO-QSA": "BO-QSA"})  # type: ignore[arg-type]
    return Experiment(item="figure1", title="Figure 1: objects that BO-QSA finds", arms=tuple(arms), figures=("grid",))


def figure2(scale: Scale) -> Experiment:
    """Test-time iterations 1 to 7 on the models of Table 7."""
    arms = []
    bases = [*scale.recipes("dogs", "transformer"), *scale.recipes("shapestacks", "mixture")]
    for base in bases:
        for method in METHODS:
            recipe = variant(base, method)
            tests = [
                replace(
                    own_test(recipe),
                    iterations=iterations,
                    condition=f"test_iterations={iterations}",
                    last_alone=True,
                )
                for iterations in TEST_ITERATIONS
            ]
            arms.append(Arm(method=method, recipe=recipe, tests=tuple(tests)))
    return Experiment(
        item="figure2",
        title="Figure 2: score against test-time iterations",
        first="BO-QSA",
        arms=tuple(arms),
        shown=("ari_fg", "iou"),
        figures=("iterations",),
        notes=("No value of the paper's Figure 2 can be read; its curves pass through Table 7's at 3 iterations.",),
    )


def figure3(scale: Scale) -> Experiment:
    """Initial slots and slots after the first iteration in one plane."""
    arms = []
    for method in ("SA", "I-SA", "I-QSA", "BO-QSA"):
        for base in scale.recipes("shapestacks", "mixture"):
            recipe = variant(base, method)
            test = Test(
                data=recipe.data,
                task=recipe.evaluate.task,
                metrics=SEPARATION_METRICS,
                probe="separation",
                last_alone=True,
            )
            arms.append(Arm(method=method, recipe=recipe, tests=(test,)))
    return Experiment(
        item="figure3",
        title="Figure 3: initial slots, and slots after one iteration",
        first="BO-QSA",
        arms=tuple(arms),
        figures=("plane",),
        notes=(
            "Chance is 1 in the number of slots for nearest_query_accuracy, and 0 for the silhouettes. Samples that "
            "were never trained can pass chance in the accuracy, as a slot remembers where it started; their "
            "silhouette does not, so read the two together.",
            "initial_silhouette is 1 for learned queries by construction, as they are the same for every image.",
        ),
    )


def figure4(scale: Scale) -> Experiment:
    """Attention of each query on the set it was trained on and on another."""
    arms = []
    for base in scale.recipes("birds", "transformer"):
        recipe = variant(base, "BO-QSA")
        tests = [
            elsewhere(recipe, name, condition=f"trained_on={recipe.data.name}") for name in scale.data_names("dogs")
        ]
        arms.append(Arm(method="BO-QSA", recipe=recipe, tests=_bound(own_test(recipe), *tests)))
    for base in scale.recipes("shapestacks", "mixture"):
        recipe = variant(base, "BO-QSA")
        target = elsewhere(recipe, "objectsroom", condition=f"trained_on={recipe.data.name}")
        arms.append(Arm(method="BO-QSA", recipe=recipe, tests=_bound(own_test(recipe), target)))
    return Experiment(
        item="figure4",
        title="Figure 4: attention of each query, on the training set and on another",
        arms=tuple(arms),
        notes=(_BINDING_NOTE,),
        figures=("attention",),
    )


def figure6(scale: Scale) -> Experiment:
    """What each slot paints, and whether a slot keeps its meaning from image to image."""
    arms = []
    for method in ("VQ-constraint", "BO-QSA", "SA"):
        for base in scale.recipes("shapestacks", "mixture"):
            recipe = variant(base, method)
            arms.append(Arm(method=method, recipe=recipe, tests=_bound(own_test(recipe))))
    return Experiment(
        item="figure6",
        title="Figure 6: what each slot paints, with and without the VQ constraint",
        arms=tuple(arms),
        figures=("slots",),
        notes=(
            _BINDING_NOTE,
            "SA is the control without fixed slots.",
        ),
    )


def _bound(*tests: Test) -> tuple[Test, ...]:
    """What slots hold across images, in place of scores."""
    return tuple(replace(test, metrics=BINDING_METRICS, probe="binding", last_alone=True) for test in tests)


def found_objects(name: str) -> Callable[[Scale], Experiment]:
    """The item of one of Figures 7 to 17."""
    dataset, family = FOUND_OBJECTS[name]

    def build(scale: Scale) -> Experiment:
        return Experiment(
            item=name,
            title=f"Figure {name.removeprefix('figure')}: objects that BO-QSA finds on {dataset}",
            arms=tuple(method_arms(scale.recipes(dataset, family), {"BO-QSA": "BO-QSA"})),
            figures=("grid",),
        )

    return build
