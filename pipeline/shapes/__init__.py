"""implicit-counting: do ResNet-18s that choose the majority shape count, and where do they decide?"""
