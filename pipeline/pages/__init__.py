"""What writes README and docs/: numbers from result files, the page of parameters, links of the site."""
