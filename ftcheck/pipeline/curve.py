"""The loss curve as a picture."""

from __future__ import annotations

import io
import json
from pathlib import Path

from ftcheck.files import write_bytes

__all__ = ["draw_loss_curve"]


def draw_loss_curve(metrics: Path, picture: Path) -> None:
    """Draw training and evaluation loss over optimizer steps, as a PNG.

    Args:
        metrics: JSON lines with `step` and `loss` or `eval_loss`.
        picture: File to write; written beside and renamed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for key, label, style in (("loss", "training", "-"), ("eval_loss", "evaluation", "o--")):
        points = [(line["step"], line[key]) for line in lines if key in line]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=5)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss (nats a token)")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=120)
    write_bytes(picture, png.getvalue())
