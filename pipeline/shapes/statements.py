"""What the paper says of all networks together, as numbers with intervals (implicit-counting, Results and Discussion).

Intervals are 95%. Where networks are what a statement generalises over, a network counts by the mean of its training
runs, and Student's t is taken over networks, by the jackknife where the number is no mean; of a rank correlation, see
`rank_correlation`. Elsewhere they cover images and training runs.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from scipy.special import stdtrit
from scipy.stats import norm, spearmanr

from pipeline.shapes.paths import observer, split_name
from pipeline.statistics.intervals import Interval, jackknifed, newcombe, over_networks, over_runs, wilson
from pipeline.statistics.psychometric import FLAT

SIMILAR = 10  # a test set is similar to a network's own where their densities, in shapes an image, differ by no more
REACH = 0.05  # a network reaches an accuracy that it misses by no more


def asymmetry(accuracy: pd.DataFrame) -> Interval | None:
    """Accuracy of the sparser-trained on the denser set minus that of the denser-trained on the sparser, mean of pairs.

    Both networks of a pair see a set that is not their own and equally far from it. None where there is one network.
    """
    return asymmetry_of(accuracy.pivot_table(index="network", columns="test", values="accuracy").to_numpy())


def asymmetry_of(values: np.ndarray) -> Interval | None:
    """The same of accuracies [networks, test sets], both in order of density, or of such differences."""
    if len(values) < 2:
        return None
    difference = values - values.T  # [i, j]: i on j's set minus j on i's

    def statistic(places: np.ndarray) -> float:
        return float(np.mean([difference[i, j] for i, j in combinations(places, 2)]))

    return jackknifed(statistic, len(values))


def own_and_others(accuracy: pd.DataFrame) -> pd.DataFrame:
    """A network's accuracy on its own test set, and its mean on the others: 'own' and 'others', a row a network."""
    own = accuracy["network"] == accuracy["test"]
    parts = {"own": accuracy[own], "others": accuracy[~own]}
    return pd.DataFrame({name: cells.groupby("network")["accuracy"].mean() for name, cells in parts.items()})


def own_over_others(accuracy: pd.DataFrame) -> Interval | None:
    """A network's accuracy on its own test set minus its mean on the others; mean over networks."""
    table = own_and_others(accuracy)
    return over_networks((table["own"] - table["others"]).to_numpy()) if len(table) > 1 else None


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


def margin_that_matters(margins: pd.DataFrame) -> Interval | None:
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

    return jackknifed(statistic, len(by_network))


def circle_bias(margins: pd.DataFrame) -> pd.DataFrame:
    """How far a network's share of 'circle' answers lies from one half, by network and density.

    Over margins other than 0, of which there are as many to either side: who has no bias answers 'circle' to half.
    Unlike the point of subjective equality it is defined where a network answers one kind only; but where the boundary
    lies off 0, who tells margins apart less well lies nearer one half. towards: 1 for circles and -1 for squares where
    the share is clearly beyond 40 to 60% (over images and runs), else 0; biased: whether it is.
    """
    rows = margins[margins["margin"].isin(-margins["margin"]) & (margins["margin"] != 0)]
    found = []
    for (network, density), cells in rows.groupby(["network", "density"]):
        images = cells["images"].to_numpy()
        by_run = np.array(cells["circle_by_run"].tolist() if "circle_by_run" in cells else cells[["circle"]])
        circles = images @ by_run  # by run
        low, high = wilson(circles, images.sum())
        share, low, high = over_runs(circles / images.sum(), low, high)
        towards = int(low > 0.6) - int(high < 0.4)
        found.append(
            {
                "network": network,
                "density": density,
                "images": images.sum(),
                "circle": share,
                "circle_by_run": (circles / images.sum()).tolist(),
                "size": abs(share - 0.5),
                "towards": towards,
                "biased": towards != 0,
            }
        )
    return pd.DataFrame(found)


def furthest_apart(shares: pd.Series, images: pd.Series, same_networks: bool) -> dict | None:
    """How far apart the two shares are that differ most, of several by what they are of; None where there is one.

    shares: of each, a list, one share a training run. images: how many each is of. same_networks: whether a run is the
    same network throughout, so that runs are compared in pairs.

    The interval holds for all pairs at once (Bonferroni), since these two were chosen: Newcombe's over images, and
    Student's t over runs, whose variance is pooled over all shares. Of one run it is None: images alone do not say what
    another would give.
    """
    pairs = len(shares) * (len(shares) - 1) // 2
    if not pairs:
        return None
    alpha = 0.05 / pairs
    by_run = np.array(shares.tolist())  # [shares, runs]
    means = pd.Series(by_run.mean(axis=1), index=shares.index)
    low, high = wilson(means * images, images, alpha)
    most, least = means.idxmax(), means.idxmin()
    apart = means[most] - means[least]
    bounds = newcombe(*((means[of], low[of], high[of]) for of in (most, least)))
    found = {"apart": apart, "low": None, "high": None, "least_at": int(least), "most_at": int(most)}
    runs = by_run.shape[1]
    if runs == 1:
        return found
    left = by_run - by_run.mean(axis=1, keepdims=True)
    freedom = len(shares) * (runs - 1)
    if same_networks:
        left -= left.mean(axis=0)
        freedom -= runs - 1
    reach = stdtrit(freedom, 1 - alpha / 2) * (2 * (left**2).sum() / freedom / runs) ** 0.5
    low, high = apart - np.hypot(apart - bounds[0], reach), apart + np.hypot(bounds[1] - apart, reach)
    return found | {"low": max(low, -1.0), "high": min(high, 1.0)}


def bias_by_density(table: pd.DataFrame) -> dict[str, dict]:
    """Of each network of `circle_bias`, how much its share of 'circle' differs between densities."""
    found = {}
    for network, rows in table.set_index("density").groupby("network"):
        if apart := furthest_apart(rows["circle_by_run"], rows["images"], same_networks=True):
            found[observer(network)] = apart
    return found


def own_accuracy_by_training_density(accuracy: pd.DataFrame) -> dict | None:
    """How much networks' accuracies on their own test sets differ."""
    own = accuracy[accuracy["network"] == accuracy["test"]].set_index("network")
    return furthest_apart(own["accuracy_by_run"], own["images"], same_networks=False)


def on_similar_sets(accuracy: pd.DataFrame) -> Interval | None:
    """Mean accuracy on the sets whose density is next to the network's own, which is left out; mean over networks."""
    apart = (accuracy["network"] - accuracy["test"]).abs()
    rows = accuracy[(apart > 0) & (apart <= SIMILAR)]
    return over_networks(rows.groupby("network")["accuracy"].mean().to_numpy()) if len(rows) else None


def reach_the_highest(accuracy: pd.DataFrame) -> dict[str, float]:
    """How many networks reach the highest accuracy of the table on some set, to within REACH; mean over runs.

    low, high: of one run, those of which it is clear, and those of which the contrary is not; by Newcombe's interval of
    what a network's best cell lacks, which holds for all cells at once (Bonferroni), since these were chosen. Over runs
    as `over_runs` has it.
    """
    counts = []
    for place in range(len(accuracy["accuracy_by_run"].iloc[0])):
        table = accuracy.assign(accuracy=[values[place] for values in accuracy["accuracy_by_run"]])
        best = table.loc[table.groupby("network")["accuracy"].idxmax()]
        low, high = wilson(best["accuracy"] * best["images"], best["images"], alpha=0.05 / len(table))
        cells = list(zip(best["accuracy"], low, high, strict=True))
        top = max(cells)
        lacks = [(0.0, 0.0, 0.0) if cell is top else (top[0] - cell[0], *newcombe(top, cell)) for cell in cells]
        counts.append([sum(lack[i] <= REACH + 1e-9 for lack in lacks) for i in (0, 2, 1)])
    networks, low, high = over_runs(*np.transpose(counts))
    return {"networks": networks, "low": max(low, 0.0), "high": min(high, float(len(best))), "of": len(best)}


def convergence(curves: pd.DataFrame, epochs: dict[int, list[list[float]]]) -> dict[str, Interval | None]:
    """Was training over when it ended? Means over networks, of each network over its training runs.

    curves: of each network and run, its loss on training images along 'images_seen' (Fig. 1). epochs: of each network,
    for each run its accuracy on its own test set after each epoch.

    loss_left: of the fall of the loss from the first quarter of training to the last, the share that came between the
    last two quarters; a third, if it fell along a line. accuracy_range: highest minus lowest accuracy over the last
    quarter of epochs; None where that is fewer than two epochs.
    """
    left = []
    for (network, _), rows in curves.groupby(["network", "run"]):
        losses = rows.sort_values("images_seen")["loss"].to_numpy(float)
        if len(losses) < 4:
            continue
        first, _, third, last = (part.mean() for part in np.array_split(losses, 4))
        if first > last:
            left.append({"network": network, "left": (third - last) / (first - last)})
    of_networks = pd.DataFrame(left, columns=["network", "left"]).groupby("network")["left"].mean()
    ranges = [
        np.mean([np.ptp(run[-(len(run) // 4) :]) for run in runs])
        for runs in epochs.values()
        if all(len(run) >= 8 for run in runs)
    ]
    return {
        "loss_left": over_networks(of_networks.to_numpy()),
        "accuracy_range": over_networks(np.array(ranges)) if ranges else None,
    }


def margins_of_test_sets(trials: pd.DataFrame, densities: list[int]) -> dict[str, dict]:
    """How large margins are that networks were trained on: of each test set, which is drawn as its training set.

    mean: of |circles - squares|, with Student's interval over images. up_to_8: share of images whose margin is within
    the paper's margin sets, -8 to 8, with Wilson's; in 'all' of all sets together.
    """
    sizes = {}
    for density in densities:
        rows = trials[trials["condition"].astype(str) == split_name(density, "test")].drop_duplicates("image")
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


def of_single_networks(margins: pd.DataFrame) -> dict:
    """Those that speak of single networks."""
    return {"bias_by_density": bias_by_density(circle_bias(margins))}


def statements(accuracy: pd.DataFrame, margins: pd.DataFrame, bias: pd.DataFrame) -> dict:
    """All of them, for `dvc metrics` and claims.yaml; None, or left out, where these settings cannot say."""
    found = circle_bias(margins)
    sizes = found.pivot_table(index="network", columns="density", values="size")
    return {
        "sparser_trained_generalise_better": asymmetry(accuracy),
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
        "relative_over_absolute_margin": margin_that_matters(margins),
    }
