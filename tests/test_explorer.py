"""The explorer: its runs by second routes, and panels that compute the newest values only and keep no thread."""

import threading
import time

import ipywidgets
import numpy as np
import pytest
import torch
from conftest import ROOT

import dufm
from dufm import explorer
from dufm.companion import panels, parameters

STATES = 1 + len(explorer.LOG_LOSSES) + 1
CORNERS = [(K, L, d, s) for K in (3, 8) for L in (2, 8) for d in (2, 32) for s in (1e-3, 1.0)]


# ---------------------------------------------------------------- the runs


@pytest.mark.parametrize("num_classes", [4, 5])
def test_the_spectral_run_is_that_of_small_steps_and_its_logits_have_its_values(num_classes):
    run = explorer.finished(explorer.spectral(num_classes, 4, 0.1, 3))
    start, chi = explorer.spectral_start(num_classes, 0.1, 3)
    levels = list(explorer.LOG_LOSSES)
    small = dufm.spectral_flow(start, 4, chi, until_log_loss=-256.0, rtol=1e-8, record={"log_loss": levels})
    met = ~small.history.s.isnan().any(-1)
    assert float(start.mean()) == pytest.approx(0.1) and met.sum() > 8
    assert float((run.values[1:-1][met] / small.history.s[met] - 1).abs().max()) < 0.02
    assert torch.equal(run.values[1:-1][~met], start.expand(int((~met).sum()), -1))
    assert float((chi.spectrum(run.Z)[0] - run.values).abs().max()) < 1e-9 * float(run.values.max())
    loss = dufm.log_loss(run.Z[1:-1][met]) - torch.tensor(levels)[met]
    assert float(loss.abs().max()) < 1e-6


@pytest.mark.parametrize("run", [explorer.spectral(6, 4, 0.1, 0), explorer.network(6, 4, 16, 0.1, 0)])
def test_the_end_has_the_margin_it_says_by_a_second_route(run):
    run = explorer.finished(run)
    assert not run.reason and run.rank == dufm.numerical_rank(run.Z[-1], 1e-8)
    collapse = dufm.simplex_etf(6) @ dufm.simplex_etf(6).mT
    ratio = dufm.normalized_margin(run.Z[-1], 4) / dufm.normalized_margin(collapse, 4)
    assert float(run.margin_ratio[-1]) == pytest.approx(float(ratio), rel=1e-9)
    assert dufm.kkt_certificate(run.Z[-1], 4, run.rank).holds()
    assert float(dufm.margins(run.Z[-1]).min()) == pytest.approx(1.0, rel=1e-9)


def test_a_network_ends_as_the_flow_in_one_piece_does():
    run = explorer.finished(explorer.network(5, 4, 8, 0.1, 1))
    start = dufm.gaussian_init(4, 8, 5, scale=0.1 ** (1 / 4), seed=1)
    end = dufm.end(dufm.gradient_flow(start, until_log_loss=-1e4), 4)
    assert (run.name, run.rank) == (str(end.name[0]), int(end.rank))
    assert float(run.margin_ratio[-1]) == pytest.approx(float(end.margin_ratio), rel=1e-6)


def test_a_network_says_every_few_steps_how_far_it_is():
    """At a saddle too, where the loss rests: there a new move has to cancel it."""
    done = list(explorer.network(8, 8, 14, 0.001, 137))
    assert done == sorted(done) and done[0] == 0.0 and 0.9 < done[-1] < 1.0
    assert sum(share < 0.1 for share in done) > 5 and len(done) > 15


def test_settings_lie_in_the_ranges_of_the_sliders_and_more_of_them_begin_alike():
    drawn = explorer.settings(300, 0)
    assert explorer.settings(24, 0) == drawn[:24] and explorer.settings(24, 1) != drawn[:24]
    spans = {key: (min(each[key] for each in drawn), max(each[key] for each in drawn)) for key in explorer.SETTING}
    assert spans["num_classes"] == (3, 8) and spans["depth"] == (2, 8)
    assert 1e-3 <= spans["scale"][0] < 2e-3 and 0.5 < spans["scale"][1] <= 1 and 0 <= spans["seed"][0]


def test_both_panels_beside_each_other_by_the_flow_in_one_piece(monkeypatch):
    row = explorer.beside(5, 3, 0.1, 3)
    start, chi = explorer.spectral_start(5, 0.1, 3)
    end = dufm.end(dufm.gradient_flow(dufm.spectral_init(start, 3, chi), until_log_loss=-1e4), 3)
    assert row["spectral"] == row["network"] == str(end.name) and row["same"] and row["apart"] < 0.05

    def too_slow(*_):
        raise dufm.DufmError("no log loss of 0 here")
        yield

    monkeypatch.setattr(explorer, "network_at", too_slow)
    refused = explorer.beside(5, 3, 0.1, 3)
    assert (refused["spectral"], refused["network"], refused["same"]) == (row["spectral"], "refused", False)
    assert np.isnan(refused["apart"])


def test_scale_is_the_root_mean_square_of_the_singular_values():
    starts = dufm.gaussian_init(3, 16, 4, scale=0.2 ** (1 / 3), seed=0, batch=4000)
    square = dufm.product(starts).square().sum((-2, -1)) / 4
    assert float(square.mean()) == pytest.approx(0.04, abs=5 * float(square.std()) / 4000**0.5)


def test_points_have_the_gram_matrix_of_balanced_features():
    run = explorer.finished(explorer.spectral(4, 3, 0.1, 0))
    found = explorer.points(run)
    features = dufm.balanced_init(run.Z[-2], 2)[0]
    features = features / features.norm(dim=0).mean()
    assert torch.allclose(found[-2] @ found[-2].mT, features.mT @ features, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "named"), [((2, 4, 0.1, 0), "num_classes"), ((4, 1, 0.1, 0), "depth"), ((4, 4, 0.0, 0), "scale")]
)
def test_numbers_out_of_range_are_refused_in_words(arguments, named):
    K, L, scale, seed = arguments
    with pytest.raises(dufm.DufmError, match=named):
        explorer.finished(explorer.spectral(K, L, scale, seed))
    with pytest.raises(dufm.DufmError, match=named):
        explorer.finished(explorer.network(K, L, 8, scale, seed))


def processor_time(call):
    """Least of three processor times of a call, seconds."""
    spent = []
    for _ in range(3):
        began = time.thread_time()
        call()
        spent.append(time.thread_time() - began)
    return min(spent)


def test_the_spectral_model_answers_at_once():
    """0.2 s on a core of one's own; twice that is allowed for, since neighbours of a core cost processor time too."""
    for K, L in ((3, 2), (8, 2), (4, 8), (8, 8)):
        assert processor_time(lambda K=K, L=L: explorer.finished(explorer.spectral(K, L, 0.1, 0))) < 0.4


@pytest.mark.slow
@pytest.mark.parametrize("corner", CORNERS, ids=str)
def test_every_corner_of_the_sliders_is_decided_or_refused_in_words(corner):
    """What is refused are narrow deep networks, whose start is next to saddles of low rank."""
    K, L, width, scale = corner
    try:
        run = explorer.finished(explorer.network(*corner, 0))
    except dufm.DufmError as error:
        assert (L, width) == (8, 2) and "take a larger scale or width" in str(error)
    else:
        assert run.reason == "" and dufm.kkt_certificate(run.Z[-1], L, run.rank).holds()
    assert explorer.finished(explorer.spectral(K, L, scale, 0)).reason == ""


# ---------------------------------------------------------------- panels


class Log:
    """What a :class:`panels.Latest` says, in order."""

    def __init__(self, work):
        self.said = []
        self.latest = panels.Latest(work, *(self.noting(word) for word in ("at", "done", "failed")))

    def noting(self, word):
        return lambda value: self.said.append((word, value))


def test_a_new_move_cancels_the_old_run_and_its_result_is_never_shown():
    going, moved, left = threading.Event(), threading.Event(), []

    def work(number):
        try:
            for share in range(100):
                yield share
                if number == 1:
                    going.set()
                    assert moved.wait(10)
            left.append(number)
            return number
        finally:
            left.append(-number)

    log = Log(work)
    log.latest.ask(number=1)
    assert going.wait(10)
    thread = log.latest._thread
    for number in (2, 3, 4):
        log.latest.ask(number=number)
    moved.set()
    assert log.latest.wait(10) and not thread.is_alive()
    assert [item for item in log.said if item[0] == "done"] == [("done", 4)]
    assert left == [-1, 4, -4]  # the first was left, the second and third never begun


def test_what_goes_wrong_is_said_and_the_next_move_works():
    def work(scale):
        yield 0.0
        dufm.gaussian_init(2, 2, 3, scale=scale, seed=0)
        return scale

    log = Log(work)
    for scale in (-1.0, 1.0):
        log.latest.ask(scale=scale)
        assert log.latest.wait(10)
    assert [word for word, _ in log.said] == ["at", "failed", "at", "done"]
    assert "scale must be" in str(log.said[1][1])


def test_a_picture_that_cannot_be_drawn_is_said_and_the_next_move_works():
    def work(number):
        yield 0.5
        return number

    log = Log(work)
    said = log.latest._done
    log.latest._done = lambda number: said(1 / number)
    for number in (0, 1):
        log.latest.ask(number=number)
        assert log.latest.wait(10)
    assert [word for word, _ in log.said] == ["at", "failed", "at", "done"]


@pytest.mark.parametrize("K", range(3, 9))
def test_every_number_of_classes_has_a_picture_at_every_state(K):
    """Three classes span no body, which stopped the panel for good."""
    for panel, run in (("spectral", explorer.spectral(K, 3, 0.1, 1)), ("network", explorer.network(K, 4, 8, 0.1, 1))):
        run = explorer.finished(run)
        for shown in (0, 7, 14):
            columns = explorer.columns(panel, run, shown, 25.0)
            assert panels.picture("92_explorer", columns).startswith(b"\x89PNG") and explorer.words(run, shown)


@pytest.fixture
def sliders():
    """The explorer at its notebook's defaults, when both panels have their first picture."""
    defaults = {item.name: item.default for item in parameters.declared("92_explorer")}
    whole = panels.sliders(type("P", (), defaults), explorer)
    assert all(run.wait(60) for run in whole.runs)
    controls = {item.description: item for item in whole.children[0].children}
    return whole, controls


def pictures(whole):
    return [panel.children[2].value for panel in whole.children[1:]]


def test_the_first_pictures_come_with_the_sliders():
    """A page of Voilà, which reads its widgets once, showed a picture never that came in that instant."""

    def work(number):
        time.sleep(0.3)
        yield 0.5
        return number

    controls = {"number": ipywidgets.IntSlider(3)}
    whole = panels.explore(controls, {}, {"one": (work, lambda result: (b"PNG", f"it is {result}"))})
    assert "it is 3" in whole.children[1].children[2].value


def test_sliders_take_the_keyboard_and_move_the_pictures(sliders):
    whole, controls = sliders
    assert list(controls) == ["K", "L", "width", "scale", "seed", "sharpness", "turn"]
    assert all(isinstance(item, ipywidgets.Widget) and item.tabbable is not False for item in controls.values())
    assert all(item.tooltip for item in controls.values()), "the label would say null"
    before = pictures(whole)
    assert all('<img alt="' in value and "end:" in value for value in before)
    controls["turn"].value = 90
    turned = pictures(whole)
    controls["seed"].value = 1
    assert all(run.wait(60) for run in whole.runs)
    assert all(len({a, b, c}) == 3 for a, b, c in zip(before, turned, pictures(whole), strict=True))


@pytest.mark.slow
def test_twenty_quick_moves_leave_no_thread_and_show_the_last(sliders):
    whole, controls = sliders
    threads, rng = threading.active_count(), np.random.default_rng(0)
    for _ in range(20):
        for name, low, high in (("K", 3, 8), ("L", 2, 8), ("width", 2, 32)):
            controls[name].value = int(rng.integers(low, high + 1))
        assert threading.active_count() <= threads + 2
        time.sleep(0.02)
    assert all(run.wait(120) for run in whole.runs)
    assert threading.active_count() <= threads
    wanted = explorer.finished(explorer.network(*(controls[name].value for name in ("K", "L", "width")), 0.1, 0))
    assert explorer.words(wanted, 9) in whole.children[2].children[1].value


def test_without_a_reader_nothing_is_attended(monkeypatch):
    assert not panels.attended()
    monkeypatch.setenv("SERVER_SOFTWARE", "voila/0.5")
    assert panels.attended()


def test_the_notebook_says_what_it_does_without_a_reader():
    text = (ROOT / "notebooks" / "9_tools" / "92_explorer.ipynb").read_text(encoding="utf-8")
    assert "No reader here" in text and "widget-view" not in text
