"""What was published, judged: claims.yaml against the numbers of this run and of those recorded under results/."""
