"""The rules by which published code finds keypoints in maps: numpy and OpenCV, one person after the other.

Rules: mmpose 1.3 (codecs/utils), HRNet (lib/core/inference.py), UDP-Pose. Maps (K, h, w) float32 of one person ->
points (K, 2) as x, y in map pixels. As there, each decoder works on a copy of the maps, looks for their maxima and
heights, and goes from joint to joint.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def maxima(maps: Array) -> tuple[Array, Array]:
    """Pixel of each map's maximum, (-1, -1) where nothing is above 0, and its height."""
    joints, _, width = maps.shape
    flat = maps.reshape(joints, -1)
    best, scores = flat.argmax(1), flat.max(1)
    points = np.stack([best % width, best // width], axis=1).astype(np.float32)
    points[scores <= 0] = -1
    return points, scores


def blurred(maps: Array, kernel: int) -> Array:
    """Each map behind a Gaussian with zeros around, as high as before."""
    border = (kernel - 1) // 2
    out = np.empty_like(maps)
    height, width = maps.shape[1:]
    for joint, each in enumerate(maps):
        wide = np.zeros((height + 2 * border, width + 2 * border), dtype=np.float32)
        wide[border : border + height, border : border + width] = each
        soft = cv2.GaussianBlur(wide, (kernel, kernel), 0)[border : border + height, border : border + width]
        out[joint] = soft * (each.max() / soft.max())
    return out


def msra(maps: Array) -> Array:
    """A quarter of a pixel towards the higher neighbour."""
    maps = maps.copy()
    points, _ = maxima(maps)
    height, width = maps.shape[1:]
    for joint, each in enumerate(maps):
        x, y = points[joint].astype(int)
        rise = [0.0, 0.0]
        if 1 < x < width - 1 and 0 < y < height:
            rise[0] = each[y, x + 1] - each[y, x - 1]
        if 1 < y < height - 1 and 0 < x < width:
            rise[1] = each[y + 1, x] - each[y - 1, x]
        points[joint] += 0.25 * np.sign(rise, dtype=np.float32)
    return points


def dark(maps: Array, kernel: int = 11) -> Array:
    """A Newton step on the logarithm of the blurred map, differences over two pixels."""
    maps = maps.copy()
    points, _ = maxima(maps)
    height, width = maps.shape[1:]
    logs = np.log(np.maximum(blurred(maps, kernel), 1e-10))
    for joint, each in enumerate(logs):
        x, y = points[joint].astype(int)
        if not (1 < x < width - 2 and 1 < y < height - 2):
            continue
        slope = 0.5 * np.array([each[y, x + 1] - each[y, x - 1], each[y + 1, x] - each[y - 1, x]])
        cross = 0.25 * (each[y + 1, x + 1] - each[y - 1, x + 1] - each[y + 1, x - 1] + each[y - 1, x - 1])
        hessian = np.array(
            [
                [0.25 * (each[y, x + 2] - 2 * each[y, x] + each[y, x - 2]), cross],
                [cross, 0.25 * (each[y + 2, x] - 2 * each[y, x] + each[y - 2, x])],
            ]
        )
        if np.linalg.det(hessian) != 0:
            points[joint] -= np.linalg.inv(hessian) @ slope
    return points


def udp(maps: Array, kernel: int = 11) -> Array:
    """A Newton step on the logarithm of the blurred map, differences over one pixel, at borders too."""
    maps = maps.copy()
    points, _ = maxima(maps)
    logs = np.log(np.clip(blurred(maps, kernel), 1e-3, 50))
    logs = np.pad(logs, ((0, 0), (1, 1), (1, 1)), mode="edge")
    joints = np.arange(len(maps))
    x, y = points.astype(int).T + 1
    middle = logs[joints, y, x]
    right, left, below, above = (logs[joints, y + dy, x + dx] for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)))
    slope = 0.5 * np.stack([right - left, below - above], axis=1)
    cross = 0.5 * (logs[joints, y + 1, x + 1] - right - below + 2 * middle - left - above + logs[joints, y - 1, x - 1])
    hessian = np.stack([right - 2 * middle + left, cross, cross, below - 2 * middle + above], axis=1)
    inverse = np.linalg.inv(hessian.reshape(-1, 2, 2) + np.finfo(np.float32).eps * np.eye(2))
    return (points - np.einsum("kij,kj->ki", inverse, slope)).astype(np.float32)


def udp_combined(maps: Array, kernel: int = 11, radius: float = 0.0546875 * 64) -> Array:
    """The maximum of the blurred disc and the offsets that stand there. Maps (3 K, h, w): disc, x, y of each point."""
    maps = maps.copy()
    for disc in maps[::3]:
        cv2.GaussianBlur(disc, (2 * kernel + 1, 2 * kernel + 1), 0, disc)
    points, _ = maxima(maps[::3])
    along_x, along_y = maps[1::3] * radius, maps[2::3] * radius
    joints, (x, y) = np.arange(len(points)), points.astype(int).T
    return points + np.stack([along_x[joints, y, x], along_y[joints, y, x]], axis=1)
