"""README's numbers are those that are recorded in results/: of the laptop runs, and of published trials."""

import json
from collections.abc import Iterator

import pytest
from conftest import REPOSITORY

from benchmarks.stability import compare

LINES = (REPOSITORY / "README.md").read_text().splitlines()
README = " ".join(" ".join(LINES).split())


def recorded(name: str, scale: str = "laptop") -> dict | list:
    return json.loads((REPOSITORY / "results" / scale / name).read_text())


def interval(row: dict, name: str, *, low: str, high: str, digits: int = 2) -> str:
    value, *bounds = (row[key] for key in (name, low, high))
    return f"{value:.{digits}f} [{bounds[0]:.{digits}f}, {bounds[1]:.{digits}f}]"


def percent(row: dict, name: str) -> str:
    return f"{row[name]:.1%} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def what_holds() -> Iterator[str]:
    judged = recorded("claims.json")
    reproduced, not_reproduced, cannot = judged["counts"].values()
    yield (
        f"of {reproduced + not_reproduced + cannot} statements, cells of published tables among them, {reproduced} "
        f"are reproduced, {not_reproduced} are not, and {cannot} cannot be judged here"
    )
    kinds = ("experiments", "published answers", "definitions")
    held, failed = (
        [judged["by_evidence"][kind][verdict] for kind in kinds] for verdict in ("reproduced", "not_reproduced")
    )
    yield f"{held[0]} rest on experiments made here"
    yield f"{held[1]} on the authors' own trials and confusion matrices"
    yield f"{held[2]} on formulas or on arithmetic"
    yield "of those not reproduced {}, {} and {}".format(*failed)
    checks = judged["checks"]
    yield (
        f"{sum(checks.values())} checks, which none of the documents states, are counted apart: "
        f"{checks['reproduced']} hold, "
        f"{checks['not_reproduced']} do not, and {checks['cannot_be_judged_here']} cannot be judged"
    )
    for document, counts in judged["by_document"].items():
        row = next(line for line in LINES if line.startswith(f"| {document} |"))
        cells = [cell.split(":")[0].strip() for cell in row.strip("|").split("|")[1:]]
        assert cells == [str(counts[verdict]) for verdict in judged["counts"]], row


def shapes() -> Iterator[str]:
    numbers = recorded("shapes/metrics.json")
    own = numbers["own_test_accuracy"]
    networks = {name: value for name, value in own.items() if name.startswith("M")}
    worst, best = min(networks, key=networks.get), max(networks, key=networks.get)
    yield f"mean {percent(own, 'mean')}, from {own[worst]:.1%} ({worst}) to {own[best]:.1%} ({best})"
    for cell in (numbers["lowest"], numbers["highest"]):
        yield percent(cell, "accuracy")
    yield (
        f"mean {numbers['mean_accuracy_on_denser_sets']:.1%} on denser sets, "
        f"{numbers['mean_accuracy_on_sparser_sets']:.1%} on sparser ones"
    )
    answers = numbers["answered_circle_with_4_more_squares"]["M50"]
    yield "{density_10:.0%}, {density_50:.0%} and {density_100:.0%} of images of 10, 50 and 100 shapes".format(
        **answers
    )


def shapes_statements() -> Iterator[str]:
    said = recorded("shapes/metrics.json")["statements"]
    yield f"{said['biased_both_ways']} of 9 networks"
    apart = said["own_accuracy_by_training_density"]
    points = {name: 100 * apart[name] for name in ("apart", "low", "high")}
    yield (
        f"by {interval(points, 'apart', low='low', high='high', digits=1).replace(' [', ' points [')} between "
        f"M{apart['least_at']} and M{apart['most_at']}"
    )
    shown = said["margins_of_test_sets"]
    small = {name: 100 * shown["all"][f"up_to_8{name}"] for name in ("", "_low", "_high")}
    yield f"{small['']:.1f}% [{small['_low']:.1f}, {small['_high']:.1f}] of images of the nine test sets"
    ends = [shown[f"density_{density}"]["up_to_8"] for density in (10, 90)]
    yield "{:.0%} of those of 10 shapes, {:.0%} of those of 90".format(*ends)


def another_machine() -> Iterator[str]:
    """Two machines with one training run a network each; then the boundaries of two more, older."""
    judged = {
        name: {claim: found["verdict"] for claim, found in recorded(f"{name}/claims.json")["claims"].items()}
        for name in ("bf16", "amx")
    }
    found = compare(judged)
    share = f"{found['differ']} differ ({found['share_that_differs']:.1%}), and {found['flip']} flips"
    yield f"of {found['claims']} verdicts {share}"
    for claim in found["differing"]:
        yield f"`{claim}`"
    xeon, elsewhere = (recorded(f"{name}/shapes.json") for name in ("xeon", "avx2"))
    yield "by more than {:.3f} ({}: {:.3f} and {:.3f})".format(
        *furthest_apart(own_accuracies(xeon), own_accuracies(elsewhere))
    )
    yield "by more than {:.2f} ({} shapes: {:.2f} and {:.2f})".format(
        *furthest_apart(circles(xeon), circles(elsewhere))
    )
    yield "by more than {:.1f} shapes ({}: {:.1f} and {:.1f})".format(
        *furthest_apart(boundaries(xeon), boundaries(elsewhere))
    )


def own_accuracies(metrics: dict) -> dict[str, float]:
    return {name: value for name, value in metrics["own_test_accuracy"].items() if name.startswith("M")}


def circles(metrics: dict) -> dict[str, float]:
    shares = metrics["answered_circle_with_4_more_squares"]
    return {f"{name} at {key.split('_')[1]}": share for name, at in shares.items() for key, share in at.items()}


def boundaries(metrics: dict) -> dict[str, float]:
    """Where there is one."""
    fits = {f"{name} at {key.split('_')[1]}": fit for name, at in metrics["bias"].items() for key, fit in at.items()}
    return {label: fit["pse"] for label, fit in fits.items() if fit["pse"] is not None}


def furthest_apart(here: dict[str, float], elsewhere: dict[str, float]) -> tuple[float, str, float, float]:
    label = max(here.keys() & elsewhere.keys(), key=lambda label: abs(here[label] - elsewhere[label]))
    return abs(here[label] - elsewhere[label]), label, here[label], elsewhere[label]


def normalisation() -> Iterator[str]:
    found = recorded("shapes/normalisation.json")
    gain = found["gain_with_tested_density"]

    def points(of: str, name: str = "mean") -> str:
        row = {key: 100 * gain[of][key] for key in (name, "low", "high")}
        return interval(row, name, low="low", high="high", digits=1)

    yield f"{found['as_saved']['other_sets']['mean']:.1%} to {found['tested_density']['other_sets']['mean']:.1%}"
    yield f"by {points('other_sets')} points"
    yield f"rises in {gain['cells']['rise']} of {gain['cells']['of']} cells and falls in {gain['cells']['fall']}"
    yield f"{points('sparser_generalise_better', 'value')} points"
    yield f"{points('bias')} points"
    own = {key: 100 * value for key, value in found["gain_with_own_density"]["bias"].items()}
    yield f"{interval(own, 'mean', low='low', high='high', digits=1)} points"


def more_images() -> Iterator[str]:
    numbers = recorded("shapes-7400/metrics.json")
    yield f"mean {percent(numbers['own_test_accuracy'], 'mean')}, M10 {numbers['own_test_accuracy']['M10']:.1%}"
    better = numbers["statements"]["sparser_trained_generalise_better"]
    points = interval({name: 100 * value for name, value in better.items()}, "value", low="low", high="high", digits=1)
    yield points.replace(" [", " points [")
    steeper = numbers["statements"]["slope_by_training_density"]["density_50"]
    yield interval(steeper, "value", low="low", high="high")


def ties() -> Iterator[str]:
    found = recorded("shapes-ties/ties.json")["all"]
    hard, soft = (100 * found["bias"][target]["mean"] for target in ("hard", "soft"))
    less = {name: 100 * value for name, value in found["less_bias"].items()}
    yield f"lies {hard:.1f} points from one half, and {soft:.1f} where ties are half and half"
    yield f"{interval(less, 'mean', low='low', high='high', digits=1).replace(' [', ' points less [')}"


def consistency() -> Iterator[str]:
    groups = recorded("consistency/counters.json")["margins"]["groups"]
    for group, label in {
        "other run": "another training run, all else equal",
        "other architecture": "another architecture (density 50)",
        "other density": "another training density",
    }.items():
        pooled = interval(groups[group], "kappa", low="kappa_low", high="kappa_high")
        within = interval(groups[group], "kappa_within", low="within_low", high="within_high")
        yield f"| {label} | {pooled} | {within} |"

    trials = recorded("consistency/metrics.consistency.trials.json", scale="paper")
    gaps = [trials[f"texture-shape_{name}"]["gap_to_people"] for name in ("cue-conflict", "edges")]
    least = [trials[f"texture-shape_{name}"]["least_consistent"]["cnn - cnn"] for name in ("cue-conflict", "edges")]
    for pair in least:
        yield f"{pair['observers'].replace(', ', ' and ')}, {interval(pair, 'kappa', low='low', high='high')}"
    apart = groups["other architecture"]
    yield interval(apart, "from_repetition", low="from_repetition_low", high="from_repetition_high")
    closed = [[f"{100 * gap[key]:.0f}" for key in ("closed", "closed_low", "closed_high")] for gap in gaps]
    yield "cue-conflict {}% [{}, {}], edges {}% [{}, {}]".format(*closed[0], *closed[1])


def countclip() -> Iterator[str]:
    found, kept = recorded("countclip/detector.json"), recorded("countclip/filter.json")
    yield f"{found['right_kind_and_count']:.1%} of {found['scenes']}"
    yield f"{kept['kept']:,} of {kept['rows']:,}: precision {kept['precision']:.3f}, recall {kept['recall']:.3f}"
    for row in recorded("countclip/measures.json"):
        yield percent(row, "accuracy")
        yield f"{row['mean_absolute_deviation']:.2f} | {percent(row['zero_shot'], 'accuracy')}"
        if row["weights"] in ("last", "held_out"):
            named = {name: 100 * row["zero_shot"][name] for name in ("change", "change_low", "change_high")}
            points = interval(named, "change", low="change_low", high="change_high", digits=1)
            yield points if row["weights"] == "held_out" else points.replace(" [", " points [")


def posenet() -> Iterator[str]:
    table = recorded("posenet/table2.json")
    patterns = ("H", "V", "G", "HS", "VS")
    for network, label in {
        "pixels/normalised": "pixels alone",
        "vgg16/random-zeros": "VGG16, random weights",
        "vgg16/random-circular": "the same, circular padding",
        "resnet152/random-zeros": "ResNet-152, random",
        "counter/trained-zeros": "the counter M50, trained",
        "counter/random-zeros": "the counter, random",
    }.items():
        cells = {
            row["pattern"]: interval(row, "spearman", low="spearman_low", high="spearman_high")
            for row in table
            if (row["reading"], row["network"], row["image"]) == ("optimum", network, "held-out")
        }
        yield f"| {label} | {' | '.join(cells[pattern] for pattern in patterns)} |"


def localize() -> Iterator[str]:
    numbers = recorded("localize/metrics.json")
    accuracy, gains = numbers["accuracy_on_margin_sets_but_ties"], numbers["against_classify"]
    densities = ("density_10", "density_50", "density_100")
    yield "| classify itself | " + " | ".join(f"{accuracy['classify'][density]:.0%}" for density in densities)
    for counter in ("regress", "ssd", "segment", "true mask"):
        for density in densities:
            yield f"+{interval(gains[counter][density], 'gain', low='gain_low', high='gain_high')}".replace("+-", "-")
    ap50 = numbers["ap50"]["ssd"]
    yield f"{ap50['density_10']:.2f} there, {ap50['density_50']:.2f} at 50, {ap50['density_90']:.2f} at 90"
    errors = numbers["count_error"]
    at = {density: [errors[name][f"density_{density}"] for name in errors] for density in (10, 50, 90)}
    regress, ssd, segment, mask = at[50]
    yield f"true mask ({mask:.1f}) and less than SSD ({ssd:.1f}) and segmentation ({segment:.1f})"
    yield f"off by {regress:.1f} shapes of a kind"
    yield f"by {at[10][0]:.1f} at 10, where five of each are, and by {at[90][0]:.1f} at 90"
    yield f"SSD is off by {at[10][1]:.1f} and segmentation by {at[10][2]:.1f}; at 90 by"
    yield f"by {at[90][1]:.1f} and {at[90][2]:.1f}. AP50"
    heat = recorded("localize/explanations.json")["M10"]
    for method in ("grad-cam layer1", "grad-cam layer2", "grad-cam layer3", "grad-cam layer4", "lime"):
        cells = [interval(heat[method]["chosen_over_area"], "value", low="value_low", high="value_high", digits=1)]
        cells += [f"{heat[method]['other_over_area']['value']:.1f}"]
        cells += [interval(heat[method]["specificity"], "gain", low="gain_low", high="gain_high", digits=1)]
        cells += [f"{heat[method]['pointing']['value']:.0%}"]
        cells += [f"{heat[method]['deletion']['value']:.2f} ({heat[method]['deletion']['random']:.2f})"]
        yield " | ".join(cells)
    own = recorded("localize/probe.json")["r2_of_last_layer"]["own density"]["trained"]["difference"]
    yield f"difference (R2 {interval(own, 'r2', low='r2_low', high='r2_high')})"


@pytest.mark.parametrize(
    "study",
    [
        what_holds,
        another_machine,
        shapes,
        shapes_statements,
        normalisation,
        more_images,
        ties,
        consistency,
        countclip,
        posenet,
        localize,
    ],
)
def test_readme_has_the_recorded_numbers(study):
    assert [said for said in study() if said not in README] == []
