"""What each key of params.yaml means, a sentence each, for docs/reference/parameters.md (parameters.py writes it).

Keys are dotted paths, of `scales` and `sources` without the name of the scale or source. `*` stands for any name, as
that of a set or a counter. The first that fits is taken. A key that has none here has params.yaml's comment.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

MEANINGS = {
    # for all studies
    "seed": "All random numbers start from it; another value means other images, initial weights and orders.",
    "scale": "How much is drawn and trained; it chooses a column of [scales](#scales-how-much).",
    "source": "Which inputs are read; it chooses a column of [sources](#sources-which-inputs).",
    "densities": "Mean number of shapes in an image; each adds a set of images, and networks that are trained on it.",
    "lambda": "How the weight of CountCLIP's counting loss depends on the number in the caption; `one` weighs all "
    "alike.",
    "threads": "CPU threads of one stage. Results are tied to it, as threads split sums. `make repro` runs as many "
    "stages at a time as there are cores for; two of one thread do more than one of two.",
    "precision": "Arithmetic of the networks; `auto` takes bf16 where the hardware is faster in it, else fp32.",
    # shapes
    "shapes.scene.canvas": "Side of the canvas on which a scene is laid out, in units of the paper's pixels.",
    "shapes.scene.oversample": "Least number of cells of the drawing grid along a canvas unit; their mean is a pixel.",
    "shapes.scene.antialias": "Whether edges are smooth; small scales need it, as shapes may be below a pixel.",
    "shapes.scene.density_sd": "Standard deviation of an image's number of shapes; the paper's 3 is read as one.",
    "shapes.scene.circle_share_mean": "Mean share of circles among an image's shapes; a share is clipped to [0, 1].",
    "shapes.scene.circle_share_sd": "Standard deviation of the share of circles; the paper's 0.25 is read as one.",
    "shapes.scene.circle_radius": "Least and greatest radius of a circle, in canvas units; drawn uniformly.",
    "shapes.scene.square_side": "Least and greatest side of a square, in canvas units; drawn uniformly.",
    "shapes.scene.background": "Grey level of the background, 0 is black; our choice, as the paper names none.",
    "shapes.scene.grey": "Least and greatest grey level of a shape, drawn uniformly; our choice.",
    "shapes.scene.overlap": "Whether shapes may cover one another; our choice, as the paper only has uniform centres.",
    "shapes.max_train_margin": "Greatest |circles - squares| of a training image, in shapes; `null` takes all images.",
    "shapes.target": "What a tie is in training: `hard`: a square, as published; `soft`: half and half.",
    "shapes.margin_densities": "Densities of the margin sets, the test images of one margin each.",
    "shapes.margins": "Margins of these sets: circles minus squares. The paper left out -6 and 6 by mistake.",
    "shapes.runs": "Training runs of each network, with other initial weights and orders; each adds its training time.",
    "shapes.variants.density": "Density on whose images the other architectures are trained; one of `densities`.",
    "shapes.variants.architectures": "Networks that the paper does not have: classifiers of torchvision's, by name.",
    "shapes.variants.runs": "Training runs of each other architecture.",
    "shapes.guests": "[Your own networks](../how-to/own-network.md) that take the test: a `name`, how to `build` one "
    "(`FILE.py:CALLABLE`, `MODULE:CALLABLE`, `torchvision:NAME` or `timm:NAME`), a safetensors file of `weights` or "
    "`null`, and whether to `train` it.",
    # consistency
    "consistency.sets.*.predictions": "File or folder of [trials](../how-to/own-trials.md), CSV or Parquet.",
    "consistency.sets.*.conditions": "Only conditions whose name begins so are read; empty takes all.",
    "consistency.sets.*.categories": "Answers that the CSV files may give; none given: any, or the "
    "sixteen of the published trials where a file has any of these.",
    "consistency.sets.*.observers": "Columns that describe an observer; of several, the last tells repetitions apart.",
    "consistency.sets.*.compare": "How pairs are named: by the `groups` of both observers, or by what they differ in.",
    "consistency.sets.*.distance": "One of `observers`, a column of numbers; it is asked whether kappa falls with the "
    "distance in it.",
    "consistency.sets.*.watch": "Pairs of observers that are reported by name.",
    # countclip
    "countclip.pool.counts": "Relative frequency of each number of things in the generated pool. For 2 to 10 it is the "
    "square root of Fig. 2's frequency: the rare numbers would be too few to learn or to weigh.",
    "countclip.pool.captions": "Shares of captions: the right number, a wrong one, none, one that counts nothing.",
    "countclip.detector.batch_size": "Images in a batch when the detector of generated things is trained; 16 does a "
    "third more a second than 8.",
    "countclip.detector.learning_rate": "First learning rate of the detector's training; it falls along a cosine.",
    "countclip.filter.engine": "What runs the filter: processes here, or Ray, which needs requirements-ray.txt.",
    "countclip.filter.batch_size": "Images that the filter sees at once; 1 is fastest on a CPU, 32 or more on a GPU.",
    "countclip.filter.threads": "CPU threads of a worker of the filter; more mean fewer workers and less memory.",
    "countclip.training.scheduler": "Whether the learning rate rises for half of the steps, then falls as a cosine.",
    "countclip.training.counterfactuals": "Wrong numbers that a caption is set against: `one` at random (Eq. 2), or "
    "`all` eight (Eq. 7, CountPlus), which costs more time a step.",
    "countclip.training.lambda_0": "Weight of the counting loss beside CLIP's own, before `lambda` balances numbers.",
    "countclip.training.count_logit_scale": "Factor of similarities in the counting loss; 1 in Eqs. 2 and 7.",
    "countclip.training.betas": "Betas of Adam; the document names no optimiser, these are of the authors' code.",
    "countclip.training.others": "Pairs beside the counting ones: those `without_number` in the caption, or `all` that "
    "the filter dropped.",
    "countclip.runs": "Training runs of the network that learns to count, with other batches and counterfactuals.",
    # posenet
    "posenet.backbones": "Networks whose maps position is read from; `pixels` has none. The others are read with the "
    "source's weights and with random ones, and each adds its time.",
    "posenet.counter_density": "Density of the shapes study's network that is read as `counter`; one of `densities`.",
    "posenet.layers": "Layers of a backbone in place of the document's five, as `{vgg16: [conv1_2, features.7]}`.",
    "posenet.padding_modes": "How the backbones pad their maps; they were trained with `zeros`.",
    "posenet.readout": "What is read of a layer: three `slices`, as in the reproduction, or all `channels`, as in the "
    "original paper, which takes more memory and time.",
    "posenet.map_size": "Side to which all maps are resized, in pixels.",
    "posenet.patterns": "Patterns to be read: gradients across (H), down (V) and from the middle (G), and stripes.",
    "posenet.kernel_sizes": "Sides of the position network's kernel, in pixels of the map, without padding (Fig. 4).",
    "posenet.paddings": "Zeros around the position network's input, in pixels of the map, with 3 x 3 kernels (Fig. 5).",
    "posenet.transpose_test": "Whether test images have rows and columns exchanged, as in the reproduction's code.",
    "posenet.training.weight_decay": "Weight decay of the position network's training.",
    "posenet.training.sgd.momentum": "Momentum of gradient descent, which is tried beside Adam.",
    "posenet.training.sgd.learning_rate": "Learning rate of gradient descent in the original authors' code; Adam's is "
    "tried too.",
    "posenet.training.sgd.tenth_after": "Epochs after which that rate is a tenth.",
    # localize
    "localize.density": "Density whose images the counters on purpose are trained on; one of `densities`.",
    "localize.counters": "Networks that count on purpose: by regression, by boxes or by segmentation. "
    "`faster_rcnn` is the slowest of them.",
    "localize.runs": "Training runs of each counter; run r is compared with run r of the network of that density.",
    "localize.anchors": "Sides of the detectors' anchor boxes, as shares of the image: one a map, and one beyond.",
    "localize.aspect_ratios": "Width over height of further anchor boxes, beside squares; more of them take more time.",
    "localize.explained": "Densities of the images that heat maps are made for.",
    "localize.grid": "Squares along a side of an image, which LIME takes away one or several at a time.",
    "localize.shifts": "Distances that a scene is moved by, in pixels.",
    "localize.turns": "Angles that a scene is turned by, in degrees, both ways.",
    "localize.zooms": "Percent that a scene is enlarged by, and reduced by as much.",
    # scales
    "scales.shapes.images": "Images of each density, training and test together; time and disk grow with it.",
    "scales.shapes.train_fraction": "Share of them to train on; the rest is the density's test set.",
    "scales.shapes.margin_images": "Images of each margin set: of each density and margin.",
    "scales.shapes.resolution": "Side of an image in pixels; time grows with its square.",
    "scales.shapes.readings.margin_images": "Images of each margin set that a network answers after every epoch.",
    "scales.shapes.readings.statistics_images": "Training images on which batch normalisation's statistics are "
    "estimated anew after every epoch.",
    "scales.shapes.bootstrap": "Resamples for the intervals of psychometric fits; more are slower and steadier.",
    "scales.consistency.trials": "Trials of every simulated experiment.",
    "scales.consistency.resamples": "Resamples of trials for the intervals; more are slower and steadier.",
    "scales.consistency.draws": "Simulated pairs of observers for each point of the chance band.",
    "scales.countclip.resolution": "Side of a generated scene in pixels.",
    "scales.countclip.pool_images": "Pairs of image and caption in the generated pool.",
    "scales.countclip.pool_shards": "Files that the pool is kept in; the filter's workers take one at a time.",
    "scales.countclip.detector_scenes": "Scenes that the detector of generated things is trained on.",
    "scales.countclip.detector_epochs": "Passes of the detector's training over its scenes.",
    "scales.countclip.detector_tests": "Scenes that the detector is tested on.",
    "scales.countclip.filter_by": "Who counts the things of a generated scene: the detector, or the drawing itself "
    "(`truth`). After one epoch a detector finds nothing.",
    "scales.countclip.benchmark_per_number": "Scenes of each number in the generated benchmark.",
    "scales.countclip.zero_shot_images": "Scenes to be named, which tell whether CLIP keeps what it knew before.",
    "scales.countclip.pretraining.scenes": "Scenes that our own CLIP is pre-trained on.",
    "scales.countclip.pretraining.steps": "Batches of pre-training; time grows with them.",
    "scales.countclip.pretraining.batch_size": "Pairs of image and caption in a batch of pre-training.",
    "scales.countclip.pretraining.learning_rate": "Highest learning rate of pre-training.",
    "scales.countclip.training.epochs": "Passes over the pairs that count.",
    "scales.countclip.training.batch_size": "Pairs in a batch: those that count, and others.",
    "scales.countclip.training.counting_pairs": "Pairs in a batch that count; `batch_size` is at least as large.",
    "scales.countclip.training.held_out": "Share of the counting pairs kept back, to choose an epoch without the test "
    "set; 0 keeps none.",
    "scales.countclip.training.learning_rate": "Learning rate, the highest where `scheduler` is on.",
    "scales.countclip.training.weight_decay": "Weight decay of Adam, added to the gradient.",
    "scales.countclip.training.eps": "Epsilon of Adam, which keeps its divisor from 0.",
    "scales.countclip.training.precision": "Arithmetic of this training, in place of the key `precision` for all.",
    "scales.posenet.image_size": "Side to which an image is resized, in pixels.",
    "scales.posenet.images": "Greatest number of images to train on.",
    "scales.posenet.held_out": "Images to test on, which no position network is trained on.",
    "scales.posenet.epochs": "Passes over the training images.",
    "scales.posenet.batch_size": "Images in a batch.",
    "scales.posenet.learning_rate": "Learning rate of Adam, the same in all epochs.",
    "scales.posenet.runs": "Training runs of every cell of the tables.",
    "scales.localize.stride": "Pixels of the image to a place of the finest map; 2 is finer and slower.",
    "scales.localize.width": "Channels of each map that detectors and segmentation read.",
    "scales.localize.mask_size": "Side of a segmentation's mask in pixels.",
    "scales.localize.held_out": "Images beside the training images, on which thresholds are chosen.",
    "scales.localize.test_images": "Test images of each density.",
    "scales.localize.explained_images": "Images of each density that heat maps are made for.",
    "scales.localize.lime_samples": "Altered images for each heat map of LIME; most of that stage's time.",
    "scales.localize.probe_images": "Images that the numbers of shapes are read from linearly, layer by layer.",
    "scales.localize.shift_images": "Images that are moved, turned and enlarged.",
    "scales.localize.training.*.images": "Images that this counter is trained on.",
    # of the shapes study's networks and the counters alike
    "scales.*.training.*epochs": "Passes over the training images; time grows with them.",
    "scales.*.training.*batch_size": "Images in a batch.",
    "scales.*.training.*learning_rate": "Learning rate, the highest where `schedule` changes it.",
    "scales.*.training.*optimizer": "How weights are changed.",
    "scales.*.training.*betas": "Betas of Adam and AdamW; `sgd` has none.",
    "scales.*.training.*weight_decay": "Weight decay of the optimiser.",
    "scales.*.training.*schedule": "Course of the learning rate: the same throughout, or up, then down (`one_cycle`).",
    # sources
    "sources.trials": "Observers of the set `trials`: simulated ones, whose kappas are known, or the published people "
    "and networks.",
    "sources.pool": "Pairs of image and caption: generated, the authors' set, or a folder of img2dataset's shards.",
    "sources.detector.path": "Weights of the detector that counts things: a path, a name in sources.yaml, or `null`: "
    "our own.",
    "sources.detector.sha256": "Hash that the detector's file must have to be opened.",
    "sources.detector.image_size": "Side of what the detector sees, in pixels; `null` is the scene's own.",
    "sources.detector.confidence": "Least confidence of a detection.",
    "sources.detector.iou": "Overlap (intersection over union) above which two boxes of one class are one thing.",
    "sources.clip.name": "The CLIP model: `small-clip`, ours, or any of open_clip's.",
    "sources.clip.weights": "Its weights: a name in sources.yaml, a path, or a tag of open_clip's; `null` is what "
    "`pretrain_clip` makes for small-clip, and random weights for any other.",
    "sources.countbench": "Images of the counting benchmark: generated, the authors' set, or a folder of img2dataset's "
    "shards.",
    "sources.zero_shot": "Images to be named: generated, or a folder with a folder for each class, named as the class "
    "is called; `null` does not ask.",
    "sources.posenet.images": "Images that position is read from: generated dead leaves, a name in sources.yaml, a "
    "folder, or a .zip archive.",
    "sources.posenet.weights": "Weights of each backbone, a name in sources.yaml or a path; `null`: random ones only.",
}


def meaning(key: str, comments: Mapping[str, str], *elsewhere: str) -> str:
    """What `key` means: the sentence above, else the comment on it, or on the first of `elsewhere` with one."""
    own = next((said for pattern, said in MEANINGS.items() if fnmatchcase(key, pattern)), "")
    return own or next((comments[name] for name in (key, *elsewhere) if name in comments), "")
