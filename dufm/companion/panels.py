"""Sliders and pictures: each panel computes in a thread of its own, with a bar, and a new move cancels the old run.

What is computed and drawn comes as functions.  A panel holds at most one thread: a move that comes while it runs makes
it drop what it was doing at the next share done and take up the newest values; with nothing left to do it ends.
"""

import base64
import io
import os
import threading
from html import escape

import ipywidgets as widgets

from dufm.companion import figures, files

__all__ = ["Latest", "attended", "explore", "picture", "sliders"]

_FIRST = 10  # seconds that the first pictures may take before the sliders are shown without them
_DRAWING = threading.Lock()  # matplotlib's style is one for all threads


def attended():
    """Whether a reader runs this cell, who can move a slider.

    A front end sends the cell's id along with its code (JupyterLab, Notebook 7, Binder's Lab); papermill, nbval and
    nbclient send none.  Voilà, which runs through nbclient for a reader, names itself in ``SERVER_SOFTWARE``.
    """
    here = files.shell()
    sent = here.kernel.get_parent("shell") if hasattr(here, "kernel") else {}
    return "cellId" in sent.get("metadata", {}) or os.environ.get("SERVER_SOFTWARE", "").startswith("voila")


class Latest:
    """Runs ``work(**values)`` for the newest values only.

    ``work`` makes a generator that yields the share done and returns a result; ``progress(share)`` and
    ``done(result)`` are called from the thread, ``failed(error)`` instead where it raises, and none of them for values
    that are no longer the newest.
    """

    def __init__(self, work, progress, done, failed):
        self._work, self._progress, self._done, self._failed = work, progress, done, failed
        self._lock, self._wanted, self._thread, self._number = threading.Lock(), None, None, 0

    def ask(self, **values):
        """Compute for these values, and drop whatever was under way."""
        with self._lock:
            self._number += 1
            self._wanted = values
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()

    def wait(self, seconds):
        """Wait until nothing is under way; whether that came about."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)
        return self._thread is None

    def _run(self):
        while True:
            with self._lock:
                if self._wanted is None:
                    self._thread = None
                    return
                number, values, self._wanted = self._number, self._wanted, None
            self._one(number, values)

    def _one(self, number, values):
        def tell(function, *arguments):
            with self._lock:
                if number == self._number:
                    function(*arguments)
            return number == self._number

        try:
            steps = self._work(**values)
            try:
                while tell(self._progress, next(steps)):
                    pass
            except StopIteration as stop:
                tell(self._done, stop.value)
        except Exception as error:  # a thread's error would be lost: the reader sees it in the panel
            tell(self._failed, error)


def picture(name, table):
    """PNG bytes of figure ``name`` for the columns ``table``, as small as on a page."""
    with _DRAWING, figures.style():
        buffer = io.BytesIO()
        figures.draw(name, table).savefig(buffer, format="png", dpi=figures.PAGE_DPI)
        return buffer.getvalue()


def explore(controls, views, panels):
    """Sliders above panels, as one widget.

    ``controls``: widgets whose values are the arguments of every panel's work; ``views``: widgets that only change what
    is seen of its result; both by name.  ``panels``: title -> ``(work, draw)``, ``draw(result, **values of views)``
    giving PNG bytes and the words that say what they show.  The words are the picture's ``alt``.
    """
    shown = [_panel(title, work, draw, views) for title, (work, draw) in panels.items()]

    def ask(_=None):
        for _, latest in shown:
            latest.ask(**{name: control.value for name, control in controls.items()})

    for control in controls.values():
        control.observe(ask, "value")
    ask()
    # A page of Voilà reads the state of its widgets once: what a thread changed just then would never be seen.
    for _, latest in shown:
        latest.wait(_FIRST)
    sliders = widgets.GridBox(
        [*controls.values(), *views.values()], layout={"grid_template_columns": "repeat(auto-fit, minmax(20em, 1fr))"}
    )
    whole = widgets.VBox([sliders, *(box for box, _ in shown)])
    whole.runs = [latest for _, latest in shown]
    return whole


def _panel(title, work, draw, views):
    bar = widgets.FloatProgress(max=1.0, description=title, style={"description_width": "initial"})
    words, image = widgets.HTML("computing"), widgets.HTML()
    kept: list[object] = []

    def show(_=None):
        if kept:
            png, alt = draw(kept[0], **{name: view.value for name, view in views.items()})
            code = base64.b64encode(png).decode()
            words.value = f'<span role="status">{escape(alt)}</span>'
            image.value = f'<img alt="{escape(title)}: {escape(alt)}" src="data:image/png;base64,{code}">'

    def progress(share):
        bar.value = share

    def done(result):
        kept[:] = [result]
        bar.value = 1.0
        show()

    def failed(error):
        kept.clear()
        words.value = f'<span role="alert">{escape(str(error))}</span>'

    for view in views.values():
        view.observe(show, "value")
    return widgets.VBox([bar, words, image]), Latest(work, progress, done, failed)


def sliders(p, explorer):
    """The explorer of notebook 92: sliders that begin at its parameters ``p``, over the functions of ``explorer``."""
    levels = ["start", *(f"{-level:g}" for level in explorer.LOG_LOSSES), "end"]

    def words(name, meaning):
        about = {"description": name, "tooltip": meaning, "continuous_update": False}
        return {**about, "style": {"description_width": "6em"}}

    classes, factors = words("K", "number of classes"), words("L", "depth: weight matrices, the features included")
    controls = {
        "num_classes": widgets.IntSlider(p.num_classes, 3, 8, **classes),
        "depth": widgets.IntSlider(p.depth, 2, 8, **factors),
        "width": widgets.IntSlider(p.width, 2, 32, **words("width", "width of the network, hidden layers")),
        "scale": widgets.FloatLogSlider(
            p.scale, min=-3, max=0, step=0.25, **words("scale", "size of the singular values at the start")
        ),
        "seed": widgets.IntSlider(p.seed, 0, 99, **words("seed", "of the random draw")),
    }
    options = [(name, index) for index, name in enumerate(levels)]
    views = {
        "shown": widgets.SelectionSlider(
            options=options, value=p.state, **words("sharpness", "how far training has gone, minus the log loss")
        ),
        "turn": widgets.IntSlider(p.turn, 0, 360, 5, **words("turn", "turns the picture, degrees")),
    }

    def spectral(num_classes, depth, width, scale, seed):
        return explorer.spectral(num_classes, depth, scale, seed)

    def draw(panel):
        def seen(run, shown, turn):
            return picture("92_explorer", explorer.columns(panel, run, shown, turn)), explorer.words(run, shown)

        return seen

    panels = {"spectral": (spectral, draw("spectral")), "network": (explorer.network, draw("network"))}
    return explore(controls, views, panels)
