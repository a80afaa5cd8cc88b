"""Error consistency of every pair of observers in a set of predictions.

    python -m pipeline.consistency.analyse --name trials

The sets are in params.yaml (`consistency.sets`): which predictions, what describes their observers,
and what pairs are compared by. Intervals are 95% bootstrap percentiles: over trials, resampled within
conditions; for group means also over trials and observers, which is what a statement about *CNNs* or
*people* needs rather than one about these CNNs and these people.

Source: Geirhos et al. (2020); papers/error-consistency.md.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from pipeline.consistency.formats import recoded, shown
from pipeline.consistency.gap import by_imagenet_accuracy, closing
from pipeline.consistency.kappa import (
    Counts,
    Design,
    agreement_bounds,
    chance_interval,
    expected_within,
    interval,
    simulated_kappas,
)
from pipeline.consistency.overall import experiment_effects, together
from pipeline.consistency.pairs import (
    Observers,
    Resamples,
    bootstrap,
    describe,
    designs,
    group_means,
    observer_times,
    pair_weights,
    repetitions,
)
from pipeline.consistency.params import ConsistencySet
from pipeline.consistency.sets import read_trial_files
from pipeline.consistency.summary import alike_in_accuracy, summary
from pipeline.params import load_params
from pipeline.shards import item_rng
from pipeline.stage import UserError, run, write_json
from pipeline.statistics.kappa import cohens_kappa

BAND = np.linspace(0.04, 0.96, 47)  # expected agreements at which the chance band is computed
CUES_DIFFER = " (cues differ)"  # cue-conflict experiments again, without images whose shape and texture agree


def read_set(settings: ConsistencySet, counts: Counter | None = None) -> pd.DataFrame:
    """All trials of a set, with 'experiment' (a condition's name up to the first slash) beside 'condition'.

    counts: as `read_trial_files` has it.
    """
    trials = read_trial_files(settings.predictions, settings.categories, counts)
    if missing := [name for name in settings.observers if name not in trials]:
        raise UserError(
            f"{settings.predictions}: lacks the columns {missing} that describe its observers; has {list(trials)}"
        )
    condition = trials["condition"].astype("category")
    found = condition.cat.categories
    named = condition.cat.codes.isin(np.flatnonzero(found.str.startswith(settings.conditions)))
    trials, condition = trials[named].copy(), condition[named]
    if trials.empty:
        raise UserError(f"{settings.predictions}: no condition begins with '{settings.conditions}'; has {shown(found)}")
    parts = {"experiment": r"/.*$", "condition": r"^[^/]*/"}  # what goes; names are few, trials may be many
    for column, other in parts.items():
        trials[column] = recoded(condition, lambda names, other=other: names.str.replace(other, "", regex=True)).astype(
            str
        )
    if "texture" in trials:
        differ = trials[trials["texture"].notna() & (trials["texture"].astype(str) != trials["category"].astype(str))]
        trials = pd.concat([trials, differ.assign(experiment=differ["experiment"] + CUES_DIFFER)])
    return trials


def analyse_experiment(
    trials: pd.DataFrame, settings: ConsistencySet, resamples: int, seed: int
) -> dict[str, pd.DataFrame]:
    """Tables of one experiment: 'pairs', 'groups', 'conditions', 'observers'.

    And 'similar' where accuracies are so; 'distances' where there is one; 'imagenet' and 'gap' where networks' ImageNet
    accuracies are known.
    """
    experiment = trials["experiment"].iloc[0]
    observers = describe(trials, settings)
    names = observers.names
    if len(names) < 2:
        raise UserError(f"experiment {experiment}: one observer only, {names[0]}; error consistency needs two")
    membership = observers.membership
    parts = designs(trials, observers)
    counts = [part.counts() for part in parts.values()]
    pooled = sum(counts[1:], counts[0])
    within = cohens_kappa(pooled.observed, expected_within(counts))
    rng = item_rng(seed, f"consistency/{experiment}")
    drawn = bootstrap(list(parts.values()), membership.to_numpy(float), resamples, rng)
    times = observer_times(observers, resamples, rng)

    design = next(iter(parts.values()))
    first, second = design.first, design.second
    low, high = interval(drawn.kappa)
    within_low, within_high = interval(drawn.within)
    chance_low, chance_high = chance_interval(pooled.first, pooled.second, np.maximum(pooled.trials, 1))
    accuracy_first, accuracy_second = pooled.accuracies
    least, most = agreement_bounds(accuracy_first, accuracy_second)
    pairs = pd.DataFrame(
        {
            "experiment": experiment,
            "first": names[first],
            "second": names[second],
            "pair": observers.labels,
            "trials": pooled.trials.astype(int),
            "accuracy_first": accuracy_first,
            "accuracy_second": accuracy_second,
            "expected": pooled.expected,
            "observed": pooled.observed,
            "observed_least": least,
            "observed_most": most,
            "kappa": pooled.kappa,
            "low": low,
            "high": high,
            "chance_low": chance_low,
            "chance_high": chance_high,
            "kappa_within": within,
            "within_low": within_low,
            "within_high": within_high,
        }
    )
    tables = {
        "pairs": pairs,
        "groups": _groups(pairs, membership, drawn, pair_weights(times), settings),
        "conditions": _by_condition(experiment, parts, counts, membership, drawn),
        "observers": _observers(experiment, observers, pairs, trials),
    }
    if len(similar := alike_in_accuracy(pairs, drawn.kappa)):
        tables["similar"] = similar
    if observers.distances is not None:
        tables["distances"] = _distances(experiment, observers, pairs, drawn)
    if gap := closing(observers, pooled.kappa, drawn.kappa, times):
        tables["gap"] = pd.DataFrame([{"experiment": experiment, **gap}])
        tables["imagenet"] = by_imagenet_accuracy(observers, pooled.kappa, drawn.kappa, times).assign(
            experiment=experiment
        )
    if not experiment.endswith(CUES_DIFFER):  # the same trials again, for `overall.together`
        effects = experiment_effects(trials, dict(zip(names, observers.group, strict=True)), gap)
        if len(effects):
            tables["effects"] = effects.assign(experiment=experiment)
    return tables


def _groups(
    pairs: pd.DataFrame, membership: pd.DataFrame, drawn: Resamples, weights: np.ndarray, settings: ConsistencySet
) -> pd.DataFrame:
    """Mean kappa of each kind of pair, and within conditions also how far it lies from that of mere repetitions."""
    matrix = membership.to_numpy(float)
    drawn_kappas = {"kappa": drawn.kappa, "within": drawn.within}
    over_trials = {name: interval(group_means(values, matrix)) for name, values in drawn_kappas.items()}
    resampled = {name: group_means(values, matrix, weights) for name, values in drawn_kappas.items()}
    over_both = {name: interval(values) for name, values in resampled.items()}
    labels = list(membership.columns)
    repeated = repetitions(labels, settings)
    rows = []
    for i, label in enumerate(membership.columns):
        these = pairs[membership[label].to_numpy()]
        involved = pd.unique(these[["first", "second"]].to_numpy().ravel())
        enough = len(involved) > 2  # two observers make one pair, however they are resampled
        row = {
            "experiment": these["experiment"].iloc[0],
            "pair": label,
            "pairs": len(these),
            "undefined": int(these["kappa"].isna().sum()),
            "beyond_chance": int((these["kappa"] > these["chance_high"]).sum()),
            "observed": these["observed"].mean(),
            "expected": these["expected"].mean(),
        }
        for name, column in (("kappa", "kappa"), ("within", "kappa_within")):
            row[column] = these[column].mean()
            row[f"{name}_low"], row[f"{name}_high"] = over_trials[name][0][i], over_trials[name][1][i]
            row[f"{name}_low_observers"] = over_both[name][0][i] if enough else np.nan
            row[f"{name}_high_observers"] = over_both[name][1][i] if enough else np.nan
        if repeated[label] and enough:
            again = [pairs.loc[membership[other].to_numpy(), "kappa_within"].mean() for other in repeated[label]]
            row["from_repetition"] = row["kappa_within"] - np.mean(again)
            places = [labels.index(other) for other in repeated[label]]
            bounds = interval(resampled["within"][:, i] - resampled["within"][:, places].mean(axis=1))
            row["from_repetition_low"], row["from_repetition_high"] = bounds
        rows.append(row)
    return pd.DataFrame(rows)


def _by_condition(
    experiment: str, parts: dict[str, Design], counts: list[Counts], membership: pd.DataFrame, drawn: Resamples
) -> pd.DataFrame:
    matrix = membership.to_numpy(float)
    rows = []
    for c, (condition, count) in enumerate(zip(parts, counts, strict=True)):
        means = group_means(count.kappa, matrix)
        undefined = np.isnan(count.kappa).astype(float) @ matrix
        low, high = interval(drawn.by_condition[c])
        accuracy = group_means(np.mean(count.accuracies, axis=0), matrix)
        for i, label in enumerate(membership.columns):
            rows.append(
                {
                    "experiment": experiment,
                    "condition": condition,
                    "place": c,
                    "pair": label,
                    "accuracy": accuracy[i],
                    "kappa": means[i],
                    "low": low[i],
                    "high": high[i],
                    "undefined": int(undefined[i]),
                }
            )
    return pd.DataFrame(rows)


def _observers(experiment: str, observers: Observers, pairs: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Each observer's accuracy, and its mean kappa with the others of each kind of pair."""
    accuracy = trials.groupby(trials["observer"].astype(str))["correct"].mean()
    both = pd.concat([pairs.rename(columns={"first": "observer"}), pairs.rename(columns={"second": "observer"})])
    mean = both.groupby(["observer", "pair"], sort=True)["kappa"].mean().reset_index()
    mean.insert(0, "experiment", experiment)
    mean["accuracy"] = mean["observer"].map(accuracy.astype(float))
    described = observers.table.astype({"observer": str}).set_index("observer")
    return mean.join(described, on="observer")


def _distances(experiment: str, observers: Observers, pairs: pd.DataFrame, drawn: Resamples) -> pd.DataFrame:
    """Mean kappa of the pairs at each distance, the pairs of every label apart; and Spearman's correlation with it."""
    rows = []
    for label in pd.unique(observers.labels[observers.distances > 0]):
        these = np.flatnonzero(observers.labels == label)
        distances = observers.distances[these]
        if len(np.unique(distances)) < 3:
            continue
        matrix = (distances[:, None] == np.unique(distances)).astype(float)
        for name, column, values in (("pooled", "kappa", drawn.kappa), ("within", "kappa_within", drawn.within)):
            kappa = pairs[column].to_numpy()[these]
            defined = ~np.isnan(kappa)
            low, high = interval(group_means(values[:, these], matrix))
            means = group_means(kappa, matrix)
            correlations = np.array([_spearman(distances, sample) for sample in values[:, these]])
            bounds = interval(correlations)
            for i, distance in enumerate(np.unique(distances)):
                rows.append(
                    {
                        "experiment": experiment,
                        "pair": label,
                        "kappa_of": name,
                        "distance": distance,
                        "pairs": int(matrix[:, i].sum()),
                        "kappa": means[i],
                        "low": low[i],
                        "high": high[i],
                        "spearman": _spearman(distances[defined], kappa[defined]),
                        "spearman_low": bounds[0],
                        "spearman_high": bounds[1],
                    }
                )
    return pd.DataFrame(rows)


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's correlation; NaN where it is undefined."""
    defined = ~np.isnan(y)
    if len(np.unique(x[defined])) < 2 or len(np.unique(y[defined])) < 2:
        return np.nan
    return float(spearmanr(x[defined], y[defined]).statistic)


def chance_band(trials: int, draws: int, rng: np.random.Generator) -> pd.DataFrame:
    """95% of kappa of two independent observers: simulated as in the paper's appendix, and exact.

    At each expected agreement, both are as accurate as one another (above 1/2), or one as accurate as
    the other is inaccurate (below).
    """
    rows = []
    for expected in BAND:
        skill = np.sqrt(abs(2 * expected - 1))
        p_a, p_b = (1 + skill) / 2, (1 + skill) / 2 if expected >= 0.5 else (1 - skill) / 2
        simulated = interval(simulated_kappas(p_a, p_b, trials, draws, rng))
        exact = chance_interval(round(p_a * trials), round(p_b * trials), trials)
        bounds = {
            "simulated_low": simulated[0],
            "simulated_high": simulated[1],
            "exact_low": exact[0],
            "exact_high": exact[1],
        }
        rows.append({"trials": trials, "expected": expected, **{name: float(bound) for name, bound in bounds.items()}})
    return pd.DataFrame(rows)


def main(name: str) -> str:
    params = load_params()
    sets = params.consistency.sets
    if name not in sets:
        raise UserError(f"params.yaml: consistency.sets has no '{name}', only {', '.join(sets)}")
    settings, scale = sets[name], params.at_scale.consistency
    counts: Counter = Counter()  # of CSV files: trials left out, and without an answer
    trials = read_set(settings, counts)
    unscored = int(trials["correct"].isna().sum())  # no answer is right: a tie, under soft targets
    trials = trials.dropna(subset=["correct"])
    results = [
        analyse_experiment(rows, settings, scale.resamples, params.seed)
        for _, rows in trials.groupby("experiment", sort=True)
    ]
    tables = {
        key: pd.concat([result[key] for result in results if key in result], ignore_index=True)
        for key in dict.fromkeys(key for result in results for key in result)
    }
    shared = tables["pairs"][tables["pairs"]["trials"] > 0]
    lengths = sorted(set(shared.groupby("experiment")["trials"].median().astype(int)), reverse=True)
    tables["band"] = pd.concat(
        [chance_band(int(n), scale.draws, item_rng(params.seed, f"consistency/band/{n}")) for n in lengths],
        ignore_index=True,
    )
    for key, table in tables.items():
        write_json(f"plots/consistency/{name}/{key}.json", table.to_dict("records"))
    numbers = {"trials_without_a_right_answer": unscored, **counts, **summary(tables, settings)}
    if mean := together(tables.get("effects")):
        numbers["together"] = mean
    write_json(f"metrics/consistency/{name}.json", numbers)
    return f"{len(tables['pairs']):,} pairs in {len(results)} experiments"


if __name__ == "__main__":
    run(main, name=str)
