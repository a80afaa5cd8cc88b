"""Where the evidence lies: explanations, boxes and masks, measured on shapes whose places are known.

Source: convnets-in-vision, applied to the question of implicit-counting. Images, weights and decisions come from the
shapes study as files.
"""
