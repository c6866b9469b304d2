"""Masks as a picture, for loggers that show pictures."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt


def draw_masks(array: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Draw masks ``(R, S, L)`` in [0, 1] side by side, tokens down and layers across, as ``(height, width, 4)``."""
    masks = np.asarray(array, dtype=np.float32)
    return _draw(masks.tobytes(), masks.shape)


@functools.lru_cache(maxsize=8)  # several loggers show the same picture, and drawing takes a few hundred milliseconds
def _draw(values: bytes, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    masks = np.frombuffer(values, dtype=np.float32).reshape(shape)
    routes, tokens, layers = masks.shape
    width, height = 1.6 + routes * (0.4 + 0.2 * layers), 1 + 0.25 * tokens  # inches
    figure = Figure(figsize=(width, height), dpi=80)
    panels = figure.subplots(1, routes, squeeze=False, sharey=True)[0]
    for route, panel in enumerate(panels):
        image = panel.imshow(masks[route], vmin=0, vmax=1, cmap="viridis", aspect="auto")
        panel.set(title=f"route {route}", xlabel="layer")
        panel.locator_params(integer=True)
    panels[0].set_ylabel("token")
    figure.subplots_adjust(left=0.6 / width, right=1 - 0.2 / width, bottom=0.5 / height, top=1 - 0.35 / height)
    figure.colorbar(image, ax=list(panels))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())
