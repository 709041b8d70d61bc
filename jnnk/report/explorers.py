"""The report's interactive figures, each a function from numbers to a figure of Plotly."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from matplotlib.colors import to_hex

from jnnk.measures import cluster_channels
from jnnk.report.figures.style import PALETTE
from jnnk.runs.records import SweepPoint

_COLOURS = [to_hex(colour) for colour in PALETTE]
_SOME = (0.005, 0.995)  # a share outside of these is none or all of the kernels
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
        names = _add_heatmap(figure, layer, matrix, visible=layer == first)
        shown = [n == index for n in range(len(matrices))]
        order = {"xaxis.categoryarray": names, "yaxis.categoryarray": names}
        buttons.append(
            {"label": plain(layer), "method": "update", "args": [{"visible": shown}, order]}
        )
        if layer == first:
            figure.update_layout(xaxis_categoryarray=names, yaxis_categoryarray=names)
    figure.update_layout(xaxis_showgrid=False, yaxis_showgrid=False)
    figure.update_xaxes(
        title="channel, in the order of clustering", type="category", constrain="domain"
    )
    figure.update_yaxes(
        title="channel", type="category", autorange="reversed", scaleanchor="x",
        constrain="domain", constraintoward="top",
    )  # fmt: skip
    menu = {"buttons": buttons, "active": list(matrices).index(first), "showactive": True}
    place = {"x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
    figure.update_layout(updatemenus=[{**menu, **place, "bgcolor": "rgba(0,0,0,0)"}])
    return figure


def _add_heatmap(figure: go.Figure, layer: str, matrix: np.ndarray, *, visible: bool) -> list[str]:
    """Draws the overlap of a layer's live channels; their names in the order of clustering."""
    live = cluster_channels(matrix).live
    shown = matrix[np.ix_(live, live)].astype(np.float32)
    np.fill_diagonal(shown, np.nan)  # a channel's overlap with itself says nothing
    names, label = [str(channel) for channel in live], plain(layer)
    figure.add_heatmap(
        z=shown, x=names, y=names, name=label, meta=layer, visible=visible,
        colorscale="Viridis", zmin=0, zmax=np.nanmax(shown, initial=0) or 1, hoverongaps=False,
        colorbar={"title": {"text": "overlap (Jaccard)", "side": "bottom"}, "nticks": 6,
                  "orientation": "h", "y": -0.14, "yanchor": "top", "thickness": 14},
        hovertemplate="channels %{y} and %{x}<br>overlap %{z:.3f}<extra>" + label + "</extra>",
    )  # fmt: skip
    return names


class _Stop(NamedTuple):
    """Where the points lie when the slider stands at a threshold.

    Attributes:
        threshold: in the unit of the weights.
        pruned: the share of kernels below it in percent, a number per criterion.
        accuracies: in percent, likewise; None beyond the last share swept.
    """

    threshold: float
    pruned: list[float]
    accuracies: list[float | None]


def threshold_explorer(
    thresholds: Sequence[float],
    shares: Mapping[str, np.ndarray],
    sweep: Mapping[str, Sequence[SweepPoint]],
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
        shares: criterion to the shares (T,) of the network's kernels below them.
        sweep: criterion to points of ascending share; its keys include those of ``shares``.
        criterion: the one whose numbers stand in the title.
        share: of kernels that ``criterion`` prunes where the slider starts.
        kernels: number of kernels the shares are of.
    """
    lines = {
        name: np.array([(point.share, point.accuracy) for point in points]).T
        for name, points in sweep.items()
    }
    colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(lines)}
    stops = [
        _Stop(thresholds[n], *_at({name: float(each[n]) for name, each in shares.items()}, lines))
        for n in _within(shares, len(thresholds))
    ]
    titled = list(shares).index(criterion)
    titles = [
        f"{plain(criterion)} below {stop.threshold:.2g}:<br>"
        + _title(stop.pruned[titled], stop.accuracies[titled], kernels)
        for stop in stops
    ]
    active = int(np.argmin([abs(stop.pruned[titled] - 100 * share) for stop in stops]))
    figure = _figure()
    _add_lines(figure, lines, colours)
    _add_points(figure, stops[active], {name: colours[name] for name in shares})
    # The slider moves the trace that was drawn last, after the lines.
    _add_slider(figure, stops, titles, active=active, moved=len(lines))
    figure.update_xaxes(
        title="conv kernels pruned (%)",
        range=[0, 101 * max(line[0].max() for line in lines.values())],
    )
    figure.update_yaxes(title="test accuracy (%)", rangemode="tozero")
    return figure


def _add_lines(
    figure: go.Figure, lines: Mapping[str, np.ndarray], colours: Mapping[str, str]
) -> None:
    """Draws the lines of the criteria, shares and accuracies (2, S) each."""
    for name, (pruned, accuracies) in lines.items():
        figure.add_scatter(
            x=100 * pruned, y=100 * accuracies, name=plain(name), mode="lines",
            line={"color": colours[name], "dash": _dash(name)},
            hovertemplate="%{x:.0f} % pruned, accuracy %{y:.2f} %",
        )  # fmt: skip


def _add_points(figure: go.Figure, stop: _Stop, colours: Mapping[str, str]) -> None:
    """Draws the points of the criteria, which have the colours, at a stop of the slider."""
    figure.add_scatter(
        x=stop.pruned, y=stop.accuracies, name="at the threshold",
        mode="markers", text=[plain(name) for name in colours],
        marker={"size": 11, "color": list(colours.values()),
                "line": {"width": 1.5, "color": "#808890"}},
        hovertemplate="%{text}: %{x:.1f} % pruned, accuracy %{y:.2f} %<extra></extra>",
    )  # fmt: skip


def _add_slider(
    figure: go.Figure, stops: Sequence[_Stop], titles: Sequence[str], *, active: int, moved: int
) -> None:
    """Adds a slider over the stops, and the title of the one at which it stands.

    ``moved`` is the number of the trace whose points it moves.
    """
    steps = [
        {
            "method": "update",
            "label": f"{stop.threshold:.2g}",
            "args": [{"x": [stop.pruned], "y": [stop.accuracies]}, {"title.text": title}, [moved]],
        }
        for stop, title in zip(stops, titles, strict=True)
    ]
    current = {"prefix": "threshold ", "font": {"size": 13}, "xanchor": "left"}
    figure.update_layout(
        title={"text": titles[active], "font": {"size": 14}, "x": 0, "xref": "paper"},
        sliders=[{"steps": steps, "active": active, "currentvalue": current, "pad": {"t": 60},
                  "font": {"size": 11}}],
        legend={"orientation": "h", "y": -0.6, "yanchor": "top", "x": 0, "font": {"size": 12}},
        margin_t=80,
    )  # fmt: skip


def _title(pruned: float, accuracy: float | None, kernels: int) -> str:
    """What a threshold prunes, in percent and in kernels, and the accuracy left."""
    left = "not swept" if accuracy is None else f"{accuracy:.2f} % without fine-tuning"
    return f"{round(pruned / 100 * kernels):,} kernels ({pruned:.1f} %) pruned,<br>accuracy {left}"


def _within(shares: Mapping[str, np.ndarray], number: int) -> range:
    """The thresholds below which some criterion has some of the kernels, and one at either end."""
    every = np.array(list(shares.values()))
    within = np.flatnonzero(((every > _SOME[0]) & (every < _SOME[1])).any(axis=0))
    if not len(within):
        return range(number)
    return range(max(within[0] - 1, 0), min(within[-1] + 2, number))


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
