"""The paper's statements about all networks, on small tables worked out by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, rankdata, ttest_1samp

from pipeline.shapes.statements import (
    asymmetry,
    bias_by_density,
    circle_bias,
    convergence,
    margin_that_matters,
    margins_of_test_sets,
    on_similar_sets,
    own_accuracy_by_training_density,
    own_over_others,
    rank_correlation,
    reach_the_highest,
    statements,
)
from pipeline.statistics.intervals import over_networks


def accuracies(*runs: dict[tuple[int, int], float]) -> pd.DataFrame:
    """A table of 100 images a cell, from the cells of each training run."""
    by_run = {key: [table[key] for table in runs] for key in runs[0]}
    return pd.DataFrame(
        [
            {"network": n, "test": t, "accuracy": np.mean(values), "accuracy_by_run": values, "images": 100}
            for (n, t), values in by_run.items()
        ]
    )


def test_asymmetry_is_the_mean_over_pairs_of_networks():
    table = accuracies(
        {(10, 10): 0.9, (10, 20): 0.8, (10, 30): 0.7, (20, 10): 0.6, (20, 20): 0.9, (20, 30): 0.85}
        | {(30, 10): 0.5, (30, 20): 0.75, (30, 30): 0.9}
    )
    # 10 on 20 minus 20 on 10, 10 on 30 minus 30 on 10, 20 on 30 minus 30 on 20: 0.2, 0.2 and 0.1
    found = asymmetry(table)
    assert found["value"] == pytest.approx(0.5 / 3)
    # without each in turn 0.1, 0.2 and 0.2: their variance about the mean is 0.02 / 9, Student's t of two 4.303
    reach = 4.303 * (2 * 0.02 / 9) ** 0.5
    assert [found["low"], found["high"]] == pytest.approx([0.5 / 3 - reach, 0.5 / 3 + reach], abs=1e-4)
    own = own_over_others(table)
    assert own["mean"] == pytest.approx(np.mean([0.9 - 0.75, 0.9 - 0.725, 0.9 - 0.625]))
    assert asymmetry(accuracies({(10, 10): 0.9})) is None


def test_the_interval_of_the_asymmetry_holds_it_as_often_as_it_says():
    """Nine networks that are better or worse by chance, on sets that are easier or harder by chance, 120 times."""
    draw, held = np.random.default_rng(0), 0
    densities = range(10, 100, 10)
    for _ in range(120):
        networks, tests, cells = draw.normal(0, 0.05, (3, 9, 9))
        values = 0.7 + networks[:, :1] + tests[:1] + cells + 0.1 * np.triu(np.ones((9, 9)), k=1)
        table = {(n, t): values[i, j] for i, n in enumerate(densities) for j, t in enumerate(densities)}
        found = asymmetry(accuracies(table))
        held += found["low"] <= 0.1 <= found["high"]
    assert held / 120 > 0.9  # 95% is promised; its standard error is 2%


def test_intervals_over_networks_are_students():
    values = np.array([0.1, 0.3, 0.2, 0.25])
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    found = over_networks(values)
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
    assert over_networks(np.array([0.1])) == {"mean": 0.1, "low": None, "high": None, "networks": 1}


def margins(shares: dict[int, float], density: int = 10, network: int = 10, images: int = 100) -> pd.DataFrame:
    rows = [{"network": network, "density": density, "margin": m, "circle": share} for m, share in shares.items()]
    return pd.DataFrame(rows).assign(
        images=images, accuracy=lambda t: np.where(t["margin"] > 0, t["circle"], 1 - t["circle"])
    )


def test_bias_is_the_distance_from_half_over_symmetric_margins():
    one_sided = circle_bias(margins({-4: 1.0, -2: 1.0, 0: 0.0, 2: 1.0, 4: 1.0}))
    assert one_sided["size"].tolist() == [0.5]  # where no point of subjective equality is defined
    assert one_sided["biased"].tolist() == [True]
    fair = circle_bias(margins({-4: 0.1, -2: 0.3, 0: 0.9, 2: 0.7, 4: 0.9}))
    assert fair["size"].tolist() == pytest.approx([0.0])
    assert fair["biased"].tolist() == [False]
    slight = circle_bias(margins({-4: 0.2, 4: 1.0}, images=10_000))  # 60%: not clearly more than that
    assert slight["biased"].tolist() == [False]
    lopsided = circle_bias(margins({-4: 0.0, 4: 0.6, 6: 1.0}))  # 6 has no counterpart: 60 of 200 are circles
    assert lopsided["size"].tolist() == pytest.approx([0.2])


def test_a_network_may_be_biased_both_ways():
    """As the paper's introduction says of some, and of M90: towards squares at one density, circles at another."""
    rows = pd.concat(
        [
            margins({-2: 0.0, 2: 0.2}, density=10, network=90),
            margins({-2: 0.9, 2: 1.0}, density=100, network=90),
            margins({-2: 0.5, 2: 0.5}, density=50, network=90),
            margins({-2: 0.9, 2: 1.0}, density=10, network=20),
            margins({-2: 0.5, 2: 0.5}, density=100, network=20),
        ]
    )
    table = circle_bias(rows)
    assert table.set_index(["network", "density"])["towards"].to_dict() == {
        (20, 10): 1,
        (20, 100): 0,
        (90, 10): -1,
        (90, 50): 0,
        (90, 100): 1,
    }
    one_run = {"apart": pytest.approx(0.85), "low": None, "high": None, "least_at": 10, "most_at": 100}
    assert bias_by_density(table)["M90"] == one_run  # what another would give is not known
    found = bias_by_density(table.assign(circle_by_run=[2 * shares for shares in table["circle_by_run"]]))
    assert found["M90"].items() >= {"apart": pytest.approx(0.85), "least_at": 10, "most_at": 100}.items()
    # of two runs that are alike, Newcombe's interval of 190/200 - 20/200; its Wilson bounds are at 1 - 0.05 / 3, since
    # any of three pairs might be it
    most = binomtest(190, 200).proportion_ci(1 - 0.05 / 3, method="wilson")
    least = binomtest(20, 200).proportion_ci(1 - 0.05 / 3, method="wilson")
    assert found["M90"]["low"] == pytest.approx(0.85 - np.hypot(0.95 - most.low, least.high - 0.1))
    assert found["M90"]["high"] == pytest.approx(0.85 + np.hypot(most.high - 0.95, 0.1 - least.low))
    assert found["M20"]["apart"] == pytest.approx(0.45)
    assert bias_by_density(table[table["density"] == 10]) == {}  # nothing to differ from


def test_accuracies_by_training_density_differ_where_even_the_chosen_pair_does():
    run = {(10, 10): 0.7, (20, 20): 0.8, (30, 30): 0.9, (10, 30): 0.1}
    assert own_accuracy_by_training_density(accuracies(run))["low"] is None
    table = accuracies(run, run).assign(images=1000)
    found = own_accuracy_by_training_density(table)
    assert (found["apart"], found["least_at"], found["most_at"]) == (pytest.approx(0.2), 10, 30)
    assert 0.15 < found["low"] < 0.2 < found["high"] < 0.25
    alike = accuracies(*2 * [{(10, 10): 0.80, (20, 20): 0.82, (30, 30): 0.81}])
    assert own_accuracy_by_training_density(alike.assign(images=1000))["low"] < 0


def test_networks_that_differ_as_much_from_run_to_run_do_not_differ():
    """Run means 0.7 and 0.8; each run 0.05 off either way: variance 0.005 of two degrees of freedom, t 4.303."""
    runs = [{(10, 10): 0.7 + d, (20, 20): 0.8 - d} for d in (-0.05, 0.05)]
    found = own_accuracy_by_training_density(accuracies(*runs).assign(images=10**9))
    reach = 4.303 * (2 * 0.005 / 2) ** 0.5
    assert [found["apart"], found["low"]] == pytest.approx([0.1, 0.1 - reach], abs=1e-3)
    # of the same networks at two densities, what both share of a run does not count
    table = circle_bias(
        pd.concat([margins({-2: 0.6, 2: 0.6}, density=10), margins({-2: 0.8, 2: 0.8}, density=50)]).assign(
            images=10**9, circle_by_run=[[0.5, 0.7], [0.5, 0.7], [0.7, 0.9], [0.7, 0.9]]
        )
    )
    steady = bias_by_density(table)["M10"]
    assert [steady["low"], steady["high"]] == pytest.approx([0.2, 0.2], abs=1e-3)


def test_similar_sets_are_those_next_to_a_networks_own():
    table = accuracies(
        {(10, 10): 0.9, (10, 20): 0.8, (10, 30): 0.1, (20, 10): 0.7, (20, 20): 0.9, (20, 30): 0.6}
        | {(30, 10): 0.1, (30, 20): 0.75, (30, 30): 0.9}
    )
    expected = ttest_1samp([0.8, 0.65, 0.75], 0)  # the means of 20; of 10 and 30; of 20
    found = on_similar_sets(table)
    assert found["mean"] == pytest.approx(np.mean([0.8, 0.65, 0.75]))
    assert found["low"] == pytest.approx(expected.confidence_interval(0.95).low)
    assert on_similar_sets(accuracies({(10, 10): 0.9, (10, 50): 0.8, (50, 10): 0.7, (50, 50): 0.9})) is None


def test_networks_that_reach_the_highest_accuracy():
    cells = {(10, 10): 0.92, (10, 20): 0.70, (20, 10): 0.91, (20, 20): 0.60, (30, 10): 0.50, (30, 20): 0.86}
    many = reach_the_highest(accuracies(cells).assign(images=100_000))
    assert many == {"networks": 2, "low": 2, "high": 2, "of": 3}  # 86% lacks six points
    few = reach_the_highest(accuracies(cells).assign(images=100))
    assert few == {"networks": 2, "low": 1, "high": 3, "of": 3}  # the best itself is clear, and nobody is excluded
    # with 2,000 images, as in the paper, a network with as high a cell is clear: Newcombe's reach is 2.9 points at most
    same = accuracies({**cells, (20, 10): 0.92}).assign(images=2000)
    low = binomtest(1840, 2000).proportion_ci(1 - 0.05 / 6, method="wilson").low
    assert np.hypot(0.92 - low, 0.92 - low) < 0.05
    assert reach_the_highest(same)["low"] == 2
    fewer = {**cells, (20, 10): 0.70}  # in a second run
    assert reach_the_highest(accuracies(cells, fewer).assign(images=100_000))["networks"] == 1.5


def test_convergence_by_hand():
    def curve(network: int, losses: list[float]) -> pd.DataFrame:
        return pd.DataFrame({"network": network, "run": 0, "images_seen": range(len(losses)), "loss": losses})

    line = curve(10, [0.7, 0.7, 0.6, 0.6, 0.5, 0.5, 0.4, 0.4])  # a third of the fall in each step
    flat = curve(20, [0.7, 0.7, 0.4, 0.4, 0.3, 0.3, 0.3, 0.3])
    expected = ttest_1samp([1 / 3, 0], 0).confidence_interval(0.95)
    curves = pd.concat([line, flat]).sample(frac=1, random_state=0)
    epochs = {10: [[0.5] * 9 + [0.90, 0.65, 0.80]], 20: [[0.5] * 9 + [0.90, 0.89, 0.91]]}
    found = convergence(curves, epochs)
    assert found["loss_left"]["mean"] == pytest.approx(1 / 6)
    assert (found["loss_left"]["low"], found["loss_left"]["high"]) == pytest.approx((expected.low, expected.high))
    assert found["accuracy_range"]["mean"] == pytest.approx((0.25 + 0.02) / 2)  # of twelve epochs, the last three
    short = convergence(curve(10, [0.7, 0.6, 0.5]), {10: [[0.6, 0.7]]})
    twice = pd.concat([line, line.assign(run=1, loss=flat["loss"])])
    assert convergence(twice, {})["loss_left"] == {
        "mean": pytest.approx(1 / 6),
        "low": None,
        "high": None,
        "networks": 1,
    }
    assert (short["loss_left"]["mean"], short["accuracy_range"]) == (None, None)


def test_margins_of_test_sets_count_each_image_once():
    rows = [("test/density-10", c, s) for c, s in ((5, 5), (8, 0), (10, 1), (3, 7))]
    rows += [("test/density-20", c, s) for c, s in ((10, 10), (20, 0))]
    rows += [("margins/density-10/margin+4", 99, 0)]  # another set
    images = pd.DataFrame(rows, columns=["condition", "circles", "squares"])
    images["image"] = images.groupby("condition").cumcount().astype(str)
    trials = pd.concat([images.assign(density=density, run=run) for density in (10, 20) for run in (0, 1)])
    found = margins_of_test_sets(trials, [10, 20])
    assert found["density_10"]["mean"] == pytest.approx((0 + 8 + 9 + 4) / 4)
    assert found["density_10"]["up_to_8"] == 0.75
    expected = ttest_1samp([0, 8, 9, 4], 0).confidence_interval(0.95)
    assert (found["density_10"]["low"], found["density_10"]["high"]) == pytest.approx((expected.low, expected.high))
    wilson = binomtest(4, 6).proportion_ci(0.95, method="wilson")
    assert (found["all"]["up_to_8_low"], found["all"]["up_to_8_high"]) == pytest.approx((wilson.low, wilson.high))
    assert (found["all"]["up_to_8"], found["all"]["images"]) == (pytest.approx(4 / 6), 6)


def test_the_relative_margin_wins_where_accuracy_follows_it():
    tables = []
    for network in (10, 20, 30):
        for density in (10, 50, 100):
            shares = {m: 0.5 + np.sign(m) * 0.5 * abs(m) / 8 * 10 / density for m in (-8, -4, -2, 0, 2, 4, 8)}
            tables.append(margins(shares, density, network))
    table = pd.concat(tables)
    found = margin_that_matters(table)
    assert found["value"] > 0.1
    assert found["low"] > 0
    follows_absolute = table.assign(accuracy=0.5 + table["margin"].abs() / 16)
    assert margin_that_matters(follows_absolute)["high"] < 0


def test_rank_correlation_by_hand():
    # ranks 1 2 3 4 5 against 2 1 3 4 5: r = 1 - 6 * 2 / 120 = 0.9; z = 1.4722, its sd sqrt(1.405 / 2) = 0.8382
    found = rank_correlation(np.array([10.0, 20, 30, 40, 50]), np.array([0.2, 0.1, 0.3, 0.4, 0.5]))
    assert (found["value"], found["networks"]) == (pytest.approx(0.9), 5)
    assert found["low"] == pytest.approx(np.tanh(1.4722 - 1.96 * 0.8382), abs=1e-3)
    assert found["high"] == pytest.approx(np.tanh(1.4722 + 1.96 * 0.8382), abs=1e-3)


@pytest.mark.parametrize("n", [4, 5, 6, 7])
def test_rank_correlations_that_are_clear_are_significant_by_the_exact_test(n):
    orders = np.array(list(permutations(range(1, n + 1))))
    correlations = 1 - 6 * ((orders - np.arange(1, n + 1)) ** 2).sum(axis=1) / (n * (n**2 - 1))
    for order in orders[:: max(1, len(orders) // 300)]:
        found = rank_correlation(np.arange(n, dtype=float), rankdata(order))
        assert found["low"] <= found["value"] <= found["high"]
        p = (np.abs(correlations) >= abs(found["value"]) - 1e-9).mean()
        assert p <= 0.05 or found["low"] <= 0 <= found["high"], (found, p)


def test_a_perfect_order_is_clear_from_five_networks_on():
    assert rank_correlation(np.arange(4.0), np.arange(4.0))["low"] < 0
    assert rank_correlation(np.arange(5.0), np.arange(5.0))["low"] > 0
    assert rank_correlation(np.arange(5.0), -np.arange(5.0)) == {
        "value": pytest.approx(-1),
        "low": pytest.approx(-1),
        "high": pytest.approx(-rank_correlation(np.arange(5.0), np.arange(5.0))["low"]),
        "networks": 5,
    }


def test_bias_that_grows_with_density_is_found():
    tables, fits = [], []
    for network in (10, 20, 30, 40, 50):
        for density, share in ((10, 0.5), (50, 0.6), (100, 0.8 + network / 1000)):
            tables.append(margins({-2: share, 0: 0.0, 2: share}, density, network))
            fits.append({"network": network, "density": density, "slope": -network * density / 1000})
    table = accuracies({(n, t): 0.8 for n in (10, 20) for t in (10, 20)})
    found = statements(table, pd.concat(tables), pd.DataFrame(fits))
    grows = found["bias_grows"]
    assert grows.keys() == {"from_10_to_50", "from_10_to_100", "from_50_to_100"}
    assert grows["from_10_to_50"]["mean"] == pytest.approx(0.1)
    assert grows["from_10_to_100"]["mean"] == pytest.approx(0.3 + np.mean([10, 20, 30, 40, 50]) / 1000)
    assert grows["from_10_to_100"]["low"] > 0
    # at 100 shapes more than 80% are 'circle', at 10 and 50 not clearly more than 60%: one density of three
    assert (found["biased"]["mean"], found["biased"]["networks"]) == (pytest.approx(1 / 3), 5)
    assert found["biased_both_ways"] == 0
    assert found["own_over_other_sets"]["mean"] == pytest.approx(0)
    assert found["slope_by_training_density"]["density_50"]["value"] == pytest.approx(-1)
