"""What the paper says of all networks together, as numbers with intervals (implicit-counting, Results and Discussion).

Intervals are 95%. Where networks are what a statement generalises over, they are resampled (percentile bootstrap of
whole networks), or Student's t is taken over them; of a rank correlation of networks, see `rank_correlation`.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import norm, spearmanr

from pipeline.shapes.paths import observer, split_name
from pipeline.statistics.intervals import Interval, newcombe, over_networks, resampled, wilson
from pipeline.statistics.psychometric import FLAT

SIMILAR = 10  # a test set is similar to a network's own where their densities, in shapes an image, differ by no more
REACH = 0.05  # a network reaches an accuracy that it misses by no more


def asymmetry(accuracy: pd.DataFrame, rng: np.random.Generator, resamples: int) -> Interval | None:
    """Accuracy of the sparser-trained on the denser set less that of the denser-trained on the sparser, mean of pairs.

    Both networks of a pair see a set that is not their own and equally far from it. None where there is one network.
    """
    table = accuracy.pivot_table(index="network", columns="test", values="accuracy")
    values = table.to_numpy()
    if len(values) < 2:
        return None
    difference = values - values.T  # [i, j]: i on j's set less j on i's

    def statistic(places: np.ndarray) -> float:
        ordered = np.sort(places)
        pairs = [difference[i, j] for a, i in enumerate(ordered) for j in ordered[a + 1 :] if i != j]
        return float(np.mean(pairs)) if pairs else np.nan

    return resampled(statistic, len(values), rng, resamples)


def own_over_others(accuracy: pd.DataFrame) -> Interval | None:
    """A network's accuracy on its own test set less its mean on the others; mean over networks."""
    table = accuracy.pivot_table(index="network", columns="test", values="accuracy").to_numpy()
    if len(table) < 2:
        return None
    others = (table.sum(axis=1) - table.diagonal()) / (len(table) - 1)
    return over_networks(table.diagonal() - others)


def rank_correlation(x: np.ndarray, y: np.ndarray) -> Interval:
    """Spearman's correlation of n >= 4 pairs, with Bonett and Wright's interval (2000, Psychometrika 65, 23-28).

    Fisher's z with variance (1 + r^2 / 2) / (n - 3): resampling so few pairs would make intervals too short. A perfect
    order, whose z is infinite, counts as half an exchange of neighbours away from it.
    """
    n, r = len(x), float(spearmanr(x, y).statistic)
    nearest = 1 - 6 / (n * (n**2 - 1))
    z = np.arctanh(np.clip(r, -nearest, nearest))
    reach = norm.ppf(0.975) * ((1 + r**2 / 2) / (n - 3)) ** 0.5
    low, high = np.tanh([z - reach, z + reach])
    return {"value": r, "low": min(float(low), r), "high": max(float(high), r), "networks": n}


def slope_by_training_density(bias: pd.DataFrame) -> dict[str, Interval]:
    """Spearman's correlation of a network's training density with the slope of its answers, for each test density.

    A network that answers one kind only has no slope to speak of, and is left out.
    A steeper slope is a finer sense of the margin; the paper supposes it of networks trained on few shapes.
    """
    return {
        f"density_{density}": rank_correlation(rows["network"].to_numpy(float), rows["slope"].to_numpy(float))
        for density, rows in bias[bias["slope"].abs() > FLAT].groupby("density")
        if len(rows) >= 4
    }


def margin_that_matters(margins: pd.DataFrame, rng: np.random.Generator, resamples: int) -> Interval | None:
    """Does accuracy follow the relative margin, |circles - squares| / shapes, more than the absolute one?

    Difference of the two correlations (Spearman's) with accuracy, over networks, densities and margins but 0.
    """
    rows = margins[margins["margin"] != 0]
    by_network = [part for _, part in rows.groupby("network")]
    if len(by_network) < 2 or rows["density"].nunique() < 2:
        return None

    def statistic(places: np.ndarray) -> float:
        these = pd.concat([by_network[i] for i in places])
        size = these["margin"].abs().to_numpy(float)
        if these["accuracy"].nunique() < 2 or len(set(size)) < 2:
            return np.nan
        relative = spearmanr(size / these["density"], these["accuracy"]).statistic
        return float(relative - spearmanr(size, these["accuracy"]).statistic)

    return resampled(statistic, len(by_network), rng, resamples)


def circle_bias(margins: pd.DataFrame) -> pd.DataFrame:
    """How far a network's share of 'circle' answers lies from one half, by network and density.

    Over margins other than 0, of which there are as many to either side: who has no bias answers 'circle' to half.
    Unlike the point of subjective equality it is defined where a network answers one kind only; but where the boundary
    lies off 0, who tells margins apart less well lies nearer one half. towards: 1 for circles and -1 for squares where
    the share is clearly beyond 40 to 60% (Wilson), else 0; biased: whether it is.
    """
    rows = margins[margins["margin"].isin(-margins["margin"]) & (margins["margin"] != 0)]
    rows = rows.assign(circles=rows["circle"] * rows["images"])
    table = rows.groupby(["network", "density"], as_index=False)[["circles", "images"]].sum()
    low, high = wilson(table["circles"], table["images"])
    towards = (low > 0.6).astype(int) - (high < 0.4).astype(int)
    return table.assign(size=(table["circles"] / table["images"] - 0.5).abs(), towards=towards, biased=towards != 0)


def furthest_apart(successes: pd.Series, total: pd.Series) -> dict | None:
    """How far apart the two shares are that differ most, of several by what they are of; None where there is one.

    With Newcombe's interval that holds for all pairs of them at once (Bonferroni), since these two were chosen.
    """
    pairs = len(total) * (len(total) - 1) // 2
    if not pairs:
        return None
    share = successes / total
    low, high = wilson(successes, total, alpha=0.05 / pairs)
    most, least = share.idxmax(), share.idxmin()
    bounds = newcombe(*((share[of], low[of], high[of]) for of in (most, least)))
    return {
        "apart": share[most] - share[least],
        "low": bounds[0],
        "high": bounds[1],
        "least_at": int(least),
        "most_at": int(most),
    }


def bias_by_density(table: pd.DataFrame) -> dict[str, dict]:
    """Of each network of `circle_bias`, how much its share of 'circle' differs between densities."""
    found = {}
    for network, rows in table.set_index("density").groupby("network"):
        if apart := furthest_apart(rows["circles"], rows["images"]):
            found[observer(network)] = apart
    return found


def own_accuracy_by_training_density(accuracy: pd.DataFrame) -> dict | None:
    """How much networks' accuracies on their own test sets differ."""
    own = accuracy[accuracy["network"] == accuracy["test"]].set_index("network")
    return furthest_apart(own["accuracy"] * own["images"], own["images"])


def on_similar_sets(accuracy: pd.DataFrame) -> Interval | None:
    """Mean accuracy on the sets whose density is next to the network's own, which is left out; mean over networks."""
    apart = (accuracy["network"] - accuracy["test"]).abs()
    rows = accuracy[(apart > 0) & (apart <= SIMILAR)]
    return over_networks(rows.groupby("network")["accuracy"].mean().to_numpy()) if len(rows) else None


def reach_the_highest(accuracy: pd.DataFrame) -> dict[str, int]:
    """How many networks reach the highest accuracy of the table on some set, to within REACH.

    low: those of which it is clear. high: those of which the contrary is not. By Newcombe's interval of what a
    network's best cell lacks, which holds for all cells at once (Bonferroni), since these were chosen.
    """
    best = accuracy.loc[accuracy.groupby("network")["accuracy"].idxmax()]
    low, high = wilson(best["accuracy"] * best["images"], best["images"], alpha=0.05 / len(accuracy))
    cells = list(zip(best["accuracy"], low, high, strict=True))
    top = max(cells)
    lacks = [(0.0, 0.0, 0.0) if cell is top else (top[0] - cell[0], *newcombe(top, cell)) for cell in cells]
    counts = [sum(lack[i] <= REACH + 1e-9 for lack in lacks) for i in range(3)]
    return {"networks": counts[0], "low": counts[2], "high": counts[1], "of": len(cells)}


def convergence(curves: pd.DataFrame, epochs: dict[int, list[float]]) -> dict[str, Interval | None]:
    """Was training over when it ended? Means over networks.

    curves: of each network, its loss on training images along 'images_seen' (Fig. 1). epochs: its accuracy on its own
    test set after each epoch.

    loss_left: of the fall of the loss from the first quarter of training to the last, the share that came between the
    last two quarters; a third, if it fell along a line. accuracy_range: highest minus lowest accuracy over the last
    quarter of epochs; None where that is fewer than two epochs.
    """
    left = []
    for _, rows in curves.groupby("network"):
        losses = rows.sort_values("images_seen")["loss"].to_numpy(float)
        if len(losses) < 4:
            continue
        first, _, third, last = (part.mean() for part in np.array_split(losses, 4))
        if first > last:
            left.append((third - last) / (first - last))
    ends = [accuracies[-(len(accuracies) // 4) :] for accuracies in epochs.values() if len(accuracies) >= 8]
    return {
        "loss_left": over_networks(np.array(left)),
        "accuracy_range": over_networks(np.array([max(end) - min(end) for end in ends])) if ends else None,
    }


def margins_of_test_sets(trials: pd.DataFrame, densities: list[int]) -> dict[str, dict]:
    """How large margins are that networks were trained on: of each test set, which is drawn as its training set.

    mean: of |circles - squares|, with Student's interval over images. up_to_8: share of images whose margin is within
    the paper's margin sets, -8 to 8, with Wilson's; in 'all' of all sets together.
    """
    sizes = {}
    for density in densities:
        rows = trials[
            (trials["observer"].astype(str) == observer(density))
            & (trials["condition"].astype(str) == split_name(density, "test"))
        ]
        sizes[f"density_{density}"] = (rows["circles"] - rows["squares"]).abs().to_numpy(float)
    found = {}
    for name, size in {**sizes, "all": np.concatenate(list(sizes.values()))}.items():
        small = int((size <= 8).sum())
        low, high = wilson(small, len(size))
        mean = over_networks(size)
        found[name] = {
            **{key: mean[key] for key in ("mean", "low", "high")},
            "up_to_8": small / len(size),
            "up_to_8_low": float(low),
            "up_to_8_high": float(high),
            "images": len(size),
        }
    return found


def statements(
    accuracy: pd.DataFrame, margins: pd.DataFrame, bias: pd.DataFrame, rng: np.random.Generator, resamples: int
) -> dict:
    """All of them, for `dvc metrics` and claims.yaml; None, or left out, where these settings cannot say."""
    found = circle_bias(margins)
    sizes = found.pivot_table(index="network", columns="density", values="size")
    return {
        "sparser_trained_generalise_better": asymmetry(accuracy, rng, resamples),
        "own_over_other_sets": own_over_others(accuracy),
        "own_accuracy_by_training_density": own_accuracy_by_training_density(accuracy),
        "on_similar_sets": on_similar_sets(accuracy),
        "reach_the_highest": reach_the_highest(accuracy),
        "biased": over_networks(found.groupby("network")["biased"].mean().to_numpy(float)),
        "biased_both_ways": sum({-1, 1} <= set(rows) for _, rows in found.groupby("network")["towards"]),
        "bias_by_density": bias_by_density(found),
        "bias_grows": {
            f"from_{sparser}_to_{denser}": over_networks((sizes[denser] - sizes[sparser]).to_numpy(float))
            for sparser, denser in combinations(sorted(sizes.columns), 2)
        },
        "slope_by_training_density": slope_by_training_density(bias),
        "relative_over_absolute_margin": margin_that_matters(margins, rng, resamples),
    }
