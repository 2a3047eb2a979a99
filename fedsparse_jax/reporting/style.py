"""The look of all figures: colours, sizes, and the bytes of a drawn figure.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; sizes are those of a two-column page (7 in wide,
8 pt). Nothing here touches pyplot's global state.
"""

import functools
import io
import warnings

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg

BLUE, ORANGE, GREEN, RED, SKY, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#6b7280"
METHOD_COLOURS = {
    "fedavg": "#000000",
    "fedsparsify_global": BLUE,
    "fedsparsify_local": RED,
    "one_shot": GREEN,
    "random": GREY,
    "snip": "#CC79A7",
    "grasp": ORANGE,
    "centralized": SKY,
}
STYLE: dict = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#4b5563",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "text.parse_math": False,
    "svg.hashsalt": "fedsparse_jax",
}
BOX = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": "#d1d5db", "alpha": 0.92}


def styled(draw):
    """Runs a drawing function in the house style and leaves matplotlib's settings as they were."""

    @functools.wraps(draw)
    def wrapper(*args, **kwargs):
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapper


@styled
def render_figure(figure, kind, dpi=200):
    """The bytes of a figure as ``kind``: png, svg or pdf; the same figure gives the same bytes.

    The layout is solved on the first call and kept, so that further kinds cost only the drawing.
    """
    blank = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a client named in another script
        if figure.get_layout_engine() is not None:
            FigureCanvasAgg(figure).draw()
            figure.set_layout_engine("none")
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=blank)
    return buffer.getvalue()


def clip_name(name, limit=14):
    """A name on one line of at most ``limit`` characters."""
    name = " ".join(str(name).split())
    return name if len(name) <= limit else name[: limit - 1] + "…"


def short_count(count):
    """A count in at most three digits: 950, 12.3 k, 4.05 M, 1.2 G."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(count) >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.3g}"


def traffic_amount(value, unit):
    """So many bytes or weights, for humans: 12.3 kB, or 12.3 k."""
    return short_count(value) + ("B" if abs(value) >= 1e3 else " B") if unit == "bytes" else short_count(value)


def annotate(ax, text, at, offset, coordinates="data", **look):
    """A remark ``offset`` points away from ``at``; the layout makes no room for it."""
    look = {"fontsize": 7.5, "annotation_clip": False, "in_layout": False, **look}
    ax.annotate(text, at, offset, coordinates, textcoords="offset points", **look)
