"""What serves the workflow itself: `make repro` here and on a cluster, reviews, checks of dvc.lock."""
