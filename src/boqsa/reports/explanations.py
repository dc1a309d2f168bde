"""What each number of the report means, in a sentence, for somebody who has not read the paper."""

from typing import NamedTuple


class Explanation(NamedTuple):
    """The name of a number as people write it, what it means, and its range."""

    title: str
    meaning: str
    scale: str


SCORES = {
    "ari_fg": Explanation(
        "ARI-FG",
        "Do the masks put two object pixels together exactly when truth does? Background is left out.",
        "0 is chance, 1 is perfect",
    ),
    "ari": Explanation(
        "ARI",
        "ARI-FG over all pixels, so that a background cut in pieces costs.",
        "0 is chance, 1 is perfect",
    ),
    "msc_fg": Explanation(
        "MSC-FG",
        "How well the best mask of each true object covers it (intersection over union), mean over objects.",
        "0 to 1, higher is better",
    ),
    "msc_fg_weighted": Explanation(
        "MSC-FG, by area", "The same, where a large object counts for more.", "0 to 1, higher is better"
    ),
    "msc": Explanation(
        "MSC", "The same as MSC-FG, with the background as one more object.", "0 to 1, higher is better"
    ),
    "background_in_one_slot": Explanation(
        "Background in one slot",
        "Share of the true background that its largest owner holds.",
        "0 to 1; 1 means that one slot has it all",
    ),
    "background_in_two_slots": Explanation(
        "Background in two slots",
        "Share of the true background that its two largest owners hold together.",
        "0 to 1, higher is better",
    ),
    "mbo": Explanation(
        "mBO", "Mean best overlap: MSC-FG under the name that later work gives it.", "0 to 1, higher is better"
    ),
    "mbo_class": Explanation(
        "mBO of classes",
        "The same where all objects of one class count as one object; those without a class are left out.",
        "0 to 1, higher is better",
    ),
    "hungarian_iou": Explanation(
        "Matched IoU",
        "The same where each mask may serve one object only (Hungarian matching); an object without one counts as 0.",
        "0 to 1, higher is better",
    ),
    "iou": Explanation(
        "Oracle slot: IoU",
        "Overlap of the true foreground with the slot that fits it best: intersection over union. The slot is chosen "
        "by the truth, as in the published code.",
        "0 to 1, higher is better",
    ),
    "dice": Explanation(
        "Oracle slot: Dice",
        "The same overlap as twice the intersection over the sum of both areas.",
        "0 to 1, higher is better",
    ),
    "intersection_iou": Explanation(
        "Largest intersection: IoU",
        "Overlap of the slot that has most of the true foreground, chosen by the truth, as the paper words it.",
        "0 to 1, higher is better",
    ),
    "intersection_dice": Explanation(
        "Largest intersection: Dice", "The same slot, as Dice.", "0 to 1, higher is better"
    ),
    "border_iou": Explanation(
        "Off-border slot: IoU",
        "Overlap of the slot that keeps off the border of the picture most, chosen in each picture without labels.",
        "0 to 1, higher is better",
    ),
    "border_dice": Explanation("Off-border slot: Dice", "The same slot, as Dice.", "0 to 1, higher is better"),
    "fixed_iou": Explanation(
        "Fixed slot: IoU",
        "Overlap of one and the same slot in every picture, the one that keeps off the border most on the whole; "
        "chosen without labels.",
        "0 to 1, higher is better",
    ),
    "fixed_dice": Explanation("Fixed slot: Dice", "The same slot, as Dice.", "0 to 1, higher is better"),
    "fixed_slot": Explanation("Fixed slot: which", "Its label in files; slot 1 of the pictures is label 0.", "from 0"),
    "ap": Explanation(
        "AP",
        "Average precision of slots as objects: do sure slots match a true object by an IoU of one half?",
        "0 to 1, higher is better",
    ),
    "pq": Explanation(
        "PQ",
        "Panoptic quality: how many objects were found, times how well those found are covered.",
        "0 to 1, higher is better",
    ),
    "f1": Explanation("F1", "Found objects, against missed and invented ones.", "0 to 1, higher is better"),
    "precision": Explanation("Precision", "Share of the predicted objects that are true.", "0 to 1, higher is better"),
    "recall": Explanation("Recall", "Share of the true objects that were found.", "0 to 1, higher is better"),
    "true_positives": Explanation("Found", "Predicted objects that match a true one.", "a count"),
    "false_positives": Explanation("Invented", "Predicted objects that match none.", "a count"),
    "false_negatives": Explanation("Missed", "True objects that no predicted one matches.", "a count"),
}

LEFT_OUT = {"overlap": "oracle slot", "label_free": "off-border and fixed slot", "instances": "objects"}
"""What metrics of several values are called; the others go by their name in `SCORES`."""

BASELINES = {
    "k_means": "k-means",
    "half_splits": "half splits",
    "centre_prior": "centre prior",
    "untrained": "untrained model",
}

RECONSTRUCTIONS = {
    "reconstruction": "Reconstruction",
    "reconstruction_teacher_forced": "Teacher-forced",
    "reconstruction_generated": "Generated from slots",
    "novel_views": "Novel views",
}
"""The reconstructions in the scores of a checkpoint; a mixture has the first alone, which is a transformer's dVAE's."""

ERRORS = {
    "mse": Explanation("MSE", "Mean over channels and pixels, images in 0 to 1.", "0 is perfect"),
    "mse_per_image": Explanation("MSE, sum", "Sum over channels and pixels, images in 0 to 1.", "0 is perfect"),
    "mse_published": Explanation(
        "MSE, published form",
        "Mean of images in -1 to 1, times height and width, as the authors printed it.",
        "0 is perfect",
    ),
}

DIAGNOSTICS = {
    "slot_use_entropy": Explanation(
        "Evenness of slot use",
        "How evenly the slots share the pixels.",
        "0: one slot has all; 1: equal shares",
    ),
    "dead_slots": Explanation(
        "Dead slots",
        "Slots that own less than a thousandth of all pixels.",
        "a few are harmless; all but one is a collapse",
    ),
    "mask_sharpness": Explanation(
        "Mask sharpness",
        "How much of a pixel its owner has, mean over pixels.",
        "1 over the number of slots: undecided; 1: decided",
    ),
    "position_information": Explanation(
        "Explained by position",
        "How much of which slot owns a pixel follows from where the pixel is. "
        "High means the picture is cut in fixed regions and no objects are found.",
        "0 to 1; above 0.5 is suspicious",
    ),
    "half_split": Explanation(
        "Halves",
        "Of two slots: how much of the smaller one a straight line explains, the same in every picture.",
        "0 to 1; above 0.6 the slots are halves of the picture",
    ),
    "slot_information": Explanation(
        "Told by the slots",
        "Nats a token that the slots of a picture save the decoder, against those of another picture.",
        "0: the decoder ignores them; higher is better",
    ),
    "query_cosine": Explanation(
        "Likeness of queries",
        "Mean cosine between the slots before they look at the image.",
        "-1 to 1; near 1 is bad",
    ),
    "update_spectral_norm": Explanation(
        "Stretch of one more step",
        "How much one more step of slot attention can enlarge a small change of the final slots: its spectral norm.",
        "below 1 every change shrinks; above 1 is usual and no fault",
    ),
    "query_gradient_norm": Explanation(
        "Gradient of the queries",
        "Size of the gradient that reaches the learned queries, in the last step of training.",
        "0: the queries do not learn",
    ),
    "background_slots": Explanation(
        "Slots on the background",
        "How many slots hold a good part of the true background.",
        "1 is ideal, 2 is usual",
    ),
    "loss_ratio": Explanation(
        "Error against one colour",
        "The squared error of the reconstruction over that of painting each image in its mean colour. Of a "
        "transformer model it is the dVAE's, and says nothing of the slots; of a features model it is of features, "
        "over giving each image its mean feature.",
        "1: nothing was learned; 0: perfect",
    ),
}

VERDICTS = {
    "healthy": ("good", "Healthy: no known failure was found. Whether the slots are objects, the pictures tell."),
    "learning": ("good", "Learning: the loss falls and the masks are still deciding."),
    "flat": ("fair", "Flat: the loss does not fall yet. Early in training this is usual; nothing is broken."),
    "split_by_position": (
        "bad",
        "Split by position: the slots cut pictures in fixed regions. No objects were found.",
    ),
    "half_split": (
        "bad",
        "Halves: the two slots cut every picture along the same straight line. No objects were found.",
    ),
    "slots_ignored": (
        "bad",
        "Slots ignored: the decoder does as well with the slots of another picture. Nothing asks them for objects.",
    ),
    "collapsed": ("bad", "Collapsed: one slot took over and the others are idle."),
    "broken": ("bad", "Broken: the loss is not a number. The weights are lost; start again."),
}
"""For each verdict of the diagnostics: good, fair or bad, and what it says in words."""

_SCENES = (
    "One scene a row. “truth” shows the labels, which training never saw. “found” gives each pixel the "
    "colour of the slot that owns it. A true object wears the colour of the slot that overlaps it most. "
    "So where both columns agree in colour, the object was found; an object in two colours was split; a "
    "colour of “truth” that “found” lacks was missed. "
)

PICTURES = {
    "segmentation": (
        "Scenes, and which slot owns each pixel",
        _SCENES + "To the right is what each slot holds: chequered ground is not its own. Slot 1 is label 0 in files.",
    ),
    "segmentation_transformer": (
        "Scenes, and which slot owns each pixel",
        _SCENES + "Then the part of the picture that each slot attends to: chequered ground is not its own; slot 1 is "
        "label 0 in files. Last come the reconstructions. “dVAE” is the picture from its tokens, without any slot. "
        "“teacher-forced” is each token as the slots and the true tokens before it foretell it. “generated”, if asked "
        "for, is what the slots alone stand for: each token follows from the generated ones before it.",
    ),
    "segmentation_features": (
        "Scenes, and which slot owns each pixel",
        _SCENES
        + "Then the part of the picture that each slot owns: chequered ground is not its own; slot 1 is label 0 in "
        "files. Masks are made on the grid of patches and enlarged. There is no reconstruction to show: this model "
        "rebuilds features.",
    ),
}
"""Title and caption of the pictures that have one; others are shown under their own name."""
