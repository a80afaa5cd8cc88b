"""Published inputs: what they are (sources.yaml), where they lie, and how they are fetched."""
