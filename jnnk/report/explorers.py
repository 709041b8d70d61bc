"""The report's interactive figures, each a function from numbers to a figure of Plotly."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import plotly.graph_objects as go

from jnnk.measures import cluster_channels
from jnnk.report.figures.style import PALETTE

_COLOURS = [mpl.colors.to_hex(colour) for colour in PALETTE]
_TELLS = (0.005, 0.995)  # shares between which a threshold tells criteria apart
_MARGIN = {"l": 60, "r": 10, "t": 50, "b": 40}


def to_html(figure: go.Figure, name: str) -> str:
    """The figure as a part of a page that has Plotly's script.

    Args:
        figure: of this module.
        name: its id in the page.
    """
    config = {"responsive": True, "displaylogo": False, "displayModeBar": False}
    return figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, config=config)


def plain(name: str) -> str:
    """A name as Plotly shows it, which takes tags, ``%{...}`` and mathematics out of texts.

    Args:
        name: any text.
    """
    marks = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "{": "&#123;", "$": "&#36;", '"': "&#34;"}
    return "".join(marks.get(character, character) for character in name)


def overlap_explorer(matrices: dict[str, np.ndarray], *, first: str) -> go.Figure:
    """Channel overlap of one layer at a time, chosen from a menu; hovering names both channels.

    Args:
        matrices: layer name to (C, C) overlap; NaN rows and columns are dead channels, left out.
        first: the layer shown at first.
    """
    figure, buttons = _figure(), []
    for index, (layer, matrix) in enumerate(matrices.items()):
        live = cluster_channels(matrix).live
        shown = matrix[np.ix_(live, live)].astype(np.float32)
        np.fill_diagonal(shown, np.nan)  # a channel's overlap with itself says nothing
        names, label = [str(channel) for channel in live], plain(layer)
        figure.add_heatmap(
            z=shown, x=names, y=names, name=label, meta=layer, visible=layer == first,
            colorscale="Viridis", zmin=0, zmax=np.nanmax(shown, initial=0) or 1, hoverongaps=False,
            colorbar={"title": {"text": "overlap (Jaccard)", "side": "bottom"}, "nticks": 6,
                      "orientation": "h", "y": -0.14, "yanchor": "top", "thickness": 14},
            hovertemplate="channels %{y} and %{x}<br>overlap %{z:.3f}<extra>" + label + "</extra>",
        )  # fmt: skip
        order = {"xaxis.categoryarray": names, "yaxis.categoryarray": names}
        buttons.append(
            {
                "label": label,
                "method": "update",
                "args": [{"visible": [n == index for n in range(len(matrices))]}, order],
            }
        )
        if layer == first:
            figure.update_layout(xaxis_categoryarray=names, yaxis_categoryarray=names)
    figure.update_layout(xaxis_showgrid=False, yaxis_showgrid=False)
    figure.update_xaxes(
        title="channel, in the order of clustering", type="category", constrain="domain"
    )
    figure.update_yaxes(
        title="channel",
        type="category",
        autorange="reversed",
        scaleanchor="x",
        constrain="domain",
        constraintoward="top",
    )
    menu = {"buttons": buttons, "active": list(matrices).index(first), "showactive": True}
    place = {"x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
    figure.update_layout(updatemenus=[{**menu, **place, "bgcolor": "rgba(0,0,0,0)"}])
    return figure


def threshold_explorer(
    thresholds: Sequence[float],
    by_threshold: Sequence[dict[str, Any]],
    sweep: dict[str, Any],
    *,
    criterion: str,
    share: float,
    kernels: int,
) -> go.Figure:
    """Accuracy against the share of kernels pruned; a slider moves a point along each line.

    A point is what a criterion prunes below the slider's threshold, with the accuracy of that
    share, between two swept shares by the straight line.

    Args:
        thresholds: T, in the unit of the weights, ascending.
        by_threshold: records of ``criterion``, ``layer`` and ``shares`` (T,); those of the network,
            whose layer is None, are shown.
        sweep: of :func:`jnnk.jobs.prune.prune`.
        criterion: the one whose numbers the title tells.
        share: where its slider stands at first.
        kernels: number of kernels the shares are of.
    """
    shares = {
        record["criterion"]: np.array(record["shares"])
        for record in by_threshold
        if record["layer"] is None
    }
    figure, lines = _figure(), {}
    for index, (name, points) in enumerate(sweep["criteria"].items()):
        lines[name] = np.array([(point["share"], point["accuracy"]) for point in points]).T
        figure.add_scatter(
            x=100 * lines[name][0], y=100 * lines[name][1], name=plain(name), mode="lines",
            line={"color": _COLOURS[index % len(_COLOURS)], "dash": _dash(name)},
            hovertemplate="%{x:.0f} % pruned, accuracy %{y:.2f} %",
        )  # fmt: skip
    colours = {name: trace.line.color for name, trace in zip(lines, figure.data, strict=True)}
    steps = []
    for step in _telling(shares, len(thresholds)):
        x, y = _at({name: float(shares[name][step]) for name in shares}, lines)
        of_criterion = list(shares).index(criterion)
        left = y[of_criterion]
        title = (
            f"{plain(criterion)} below {thresholds[step]:.2g}:<br>"
            f"{round(x[of_criterion] / 100 * kernels):,} kernels ({x[of_criterion]:.1f} %) pruned,"
            "<br>accuracy " + ("not swept" if left is None else f"{left:.2f} % without fine-tuning")
        )
        arguments = [{"x": [x], "y": [y]}, {"title.text": title}, [len(lines)]]
        label = f"{thresholds[step]:.2g}"
        steps.append({"method": "update", "label": label, "args": arguments})
    pruned = [step["args"][0]["x"][0][of_criterion] for step in steps]
    active = int(np.argmin(np.abs(np.array(pruned) - 100 * share)))
    points, layout, _ = steps[active]["args"]
    figure.add_scatter(
        x=points["x"][0], y=points["y"][0], name="at the threshold", mode="markers",
        text=[plain(name) for name in shares],
        marker={"size": 11, "color": [colours[name] for name in shares],
                "line": {"width": 1.5, "color": "#808890"}},
        hovertemplate="%{text}: %{x:.1f} % pruned, accuracy %{y:.2f} %<extra></extra>",
    )  # fmt: skip
    current = {"prefix": "threshold ", "font": {"size": 13}, "xanchor": "left"}
    figure.update_layout(
        title={"text": layout["title.text"], "font": {"size": 14}, "x": 0, "xref": "paper"},
        sliders=[{"steps": steps, "active": active, "currentvalue": current, "pad": {"t": 60},
                  "font": {"size": 11}}],
        legend={"orientation": "h", "y": -0.6, "yanchor": "top", "x": 0, "font": {"size": 12}},
        margin_t=80,
    )  # fmt: skip
    figure.update_xaxes(
        title="conv kernels pruned (%)",
        range=[0, 101 * max(line[0].max() for line in lines.values())],
    )
    figure.update_yaxes(title="test accuracy (%)", rangemode="tozero")
    return figure


def _telling(shares: dict[str, np.ndarray], number: int) -> range:
    """The thresholds that tell the criteria apart, and one beyond at either end."""
    every = np.array(list(shares.values()))
    telling = np.flatnonzero(((every > _TELLS[0]) & (every < _TELLS[1])).any(axis=0))
    if not len(telling):
        return range(number)
    return range(max(telling[0] - 1, 0), min(telling[-1] + 2, number))


def _at(
    shares: dict[str, float], lines: dict[str, np.ndarray]
) -> tuple[list[float], list[float | None]]:
    """Shares and accuracies on the lines in percent; None beyond the last share swept."""
    accuracies = [
        100 * float(np.interp(share, *lines[name])) if share <= lines[name][0].max() else None
        for name, share in shares.items()
    ]
    return [100 * share for share in shares.values()], accuracies


def _figure() -> go.Figure:
    """An empty figure in the page's style, which gives its size and the colour of its text."""
    return go.Figure(
        layout={
            "template": "none",
            "margin": _MARGIN,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "system-ui, sans-serif", "size": 13},
            "xaxis": {"zeroline": False, "gridcolor": "#d8dde3"},
            "yaxis": {"zeroline": False, "gridcolor": "#d8dde3"},
        }
    )


def _dash(criterion: str) -> str:
    """Dashes tell apart lines that coincide."""
    return {"random": "dot", "det_gram": "dash"}.get(criterion, "solid")
