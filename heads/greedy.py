"""From raw outputs to detections by compiled loops, for CPUs.

torch decodes by a dozen operators, each of which takes longer to start than to run. It has no operator that stops at the wanted number of
boxes or leaves pairs of different classes alone; its own needs all pairs.
"""

import numpy as np
from numpy.typing import NDArray

from backbones.loops import compiled


@compiled
def decode_all(deltas: NDArray[np.float32], anchors: NDArray[np.float32], weights: tuple[float, ...], most: float) -> NDArray[np.float32]:
    """What `heads.boxes.decode` does.

    Args:
        deltas: (B, A, 4) offsets.
        anchors: (A, 4) x1 y1 x2 y2.
        weights: four scales of the coder.
        most: largest logarithm of a side in sides of its anchor.

    Returns:
        (B, A, 4) x1 y1 x2 y2.
    """
    boxes = np.empty_like(deltas)
    for image in range(deltas.shape[0]):
        for n in range(deltas.shape[1]):
            for axis in range(2):
                side = anchors[n, axis + 2] - anchors[n, axis]
                centre = (anchors[n, axis] + anchors[n, axis + 2]) / 2 + deltas[image, n, axis] / weights[axis] * side
                log = deltas[image, n, axis + 2] / weights[axis + 2]
                if log > most:
                    log = most
                half = side * np.exp(log) / 2
                boxes[image, n, axis] = centre - half
                boxes[image, n, axis + 2] = centre + half
    return boxes


@compiled
def passing(scores: NDArray[np.float32], threshold: float) -> NDArray[np.uint64]:
    """Keys of the scores over a threshold: sorted, they stand by descending score, and equal scores in order.

    Scores are not negative, so that their bits are in the order of their values; a sort of whole numbers is many times as fast as one of
    indices.

    Args:
        scores: (A, K) in 0..1.
        threshold: keys are made of greater scores.

    Returns:
        (N,) in the upper 32 bits what the score's bits lack, in the lower the place among the (A K,) scores.
    """
    bits, classes = scores.view(np.uint32), scores.shape[1]
    keys, count = np.empty(scores.size, np.uint64), 0
    for anchor in range(scores.shape[0]):
        for label in range(classes):
            # Written in any case: that is faster than a branch which cannot be foreseen.
            keys[count] = (np.uint64(0xFFFFFFFF - bits[anchor, label]) << np.uint64(32)) | np.uint64(anchor * classes + label)
            count += scores[anchor, label] > threshold
    return keys[:count]


@compiled
def greedy(
    keys: NDArray[np.uint64],
    boxes: NDArray[np.float32],
    classes: int,
    iou_threshold: float,
    candidates_per_class: int,
    max_per_class: int,
    max_detections: int,
    class_agnostic: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Goes through candidates, best first, and keeps those that no kept one of their class overlaps by more than the threshold.

    Args:
        keys: (N,) the sorted keys of `passing`.
        boxes: (A, 4) x1 y1 x2 y2.
        classes: number of classes K.
        iou_threshold: of two boxes that overlap more, the better scored is kept.
        candidates_per_class: most candidates of a class that are looked at.
        max_per_class: most detections of a class.
        max_detections: most detections.
        class_agnostic: compare across classes too.

    Returns:
        Indices (M,) of anchors, by descending score, and (M,) labels in 1..K.
    """
    seen, given = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    # Kept boxes stand in groups, which are a class or all of them.
    groups, most = (1, len(keys)) if class_agnostic else (classes, min(max_per_class, max_detections))
    rivals = np.empty((groups, 5, most))  # left, top, right, bottom, area
    kept = np.zeros(groups, np.int64)
    anchors, labels, total = np.empty(max_detections, np.int64), np.empty(max_detections, np.int64), 0
    for key in keys:
        if total == max_detections:
            break
        anchor, label = divmod(np.int64(key & np.uint64(0xFFFFFFFF)), classes)
        group = 0 if class_agnostic else label
        seen[label] += 1
        if seen[label] > candidates_per_class or (given[label] == max_per_class and not class_agnostic):
            continue
        left, top = np.float64(boxes[anchor, 0]), np.float64(boxes[anchor, 1])
        right, bottom = np.float64(boxes[anchor, 2]), np.float64(boxes[anchor, 3])
        area, others, overlaps = (right - left) * (bottom - top), rivals[group], False
        for n in range(kept[group]):  # looks at all of them, so that vectors can do it
            width = max(min(right, others[2, n]) - max(left, others[0, n]), 0.0)
            height = max(min(bottom, others[3, n]) - max(top, others[1, n]), 0.0)
            shared = width * height
            overlaps |= shared / (area + others[4, n] - shared) > iou_threshold
        if overlaps:
            continue
        place = kept[group]
        others[0, place], others[1, place], others[2, place], others[3, place], others[4, place] = left, top, right, bottom, area
        kept[group] += 1
        if given[label] < max_per_class:
            given[label] += 1
            anchors[total], labels[total] = anchor, label + 1
            total += 1
    return anchors[:total], labels[:total]


@compiled
def detected(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    anchors: NDArray[np.int64],
    labels: NDArray[np.int64],
    input_size: tuple[int, int],
    image_size: NDArray[np.int64],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Takes the boxes and scores of detections, and does to the boxes what `heads.boxes.to_image` does.

    Args:
        boxes: (A, 4) x1 y1 x2 y2 in pixels of the network's input.
        scores: (A, K).
        anchors: (N,) indices of anchors.
        labels: (N,) in 1..K.
        input_size: height and width of the network's input.
        image_size: height and width of the original image.

    Returns:
        (N, 4) boxes, cut off at the input's borders, in pixels of the original image, and (N,) scores.
    """
    found, own = np.empty((len(anchors), 4), np.float32), np.empty(len(anchors), np.float32)
    for n in range(len(anchors)):
        for side in range(4):
            axis = 1 - side % 2
            limit, value = np.float32(input_size[axis]), boxes[anchors[n], side]
            value = np.float32(0) if value < 0 else limit if value > limit else value
            found[n, side] = value * (np.float32(image_size[axis]) / limit)
        own[n] = scores[anchors[n], labels[n] - 1]
    return found, own
