"""Names of the runs of fine-tuning."""


def run_name(run: int) -> str:
    """Of one run, as its files are named."""
    return f"run{run}"
