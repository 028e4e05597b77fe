"""``report`` and ``bench --compare``: pages to look at."""

from collections.abc import Sequence
from pathlib import Path

from lightssl.deploy.results import Compared, compare_results, read_results
from lightssl.pipeline.loading import as_run
from lightssl.pipeline.previewing import view_distributions
from lightssl.progress import Narrator, Silent
from lightssl.runs import Run


def report(run: Run | Path | str | None = None, *, out: Path | str | None = None) -> Path:
    """Write one self-contained HTML page about a run, and return its path.

    Args:
        run: By default the latest run.
        out: The file; by default ``report.html`` in the run folder.
    """
    from lightssl.reports.page import write_report  # brings matplotlib

    run = as_run(run)
    return write_report(run.folder, Path(out) if out is not None else None, distributions=view_distributions(run))


def compare(
    results: Sequence[Path | str], *, out: Path | str | None = None, narrator: Narrator | None = None
) -> list[Compared]:
    """Hold results of :func:`bench` against those of the first file: other devices, other models, or a change.

    Args:
        results: What ``bench`` wrote to a run or ``lightssl bench --json`` printed: two files or more.
        out: An HTML page to write, which also shows latency against accuracy and size.
        narrator: Told how it goes.

    Returns:
        As :func:`lightssl.deploy.results.compare_results`.

    Raises:
        ConfigError: A file does not hold results, or they have nothing in common.
    """
    read = {Path(file): read_results(Path(file)) for file in results}
    compared = compare_results(read)
    left_out = sum(map(len, read.values())) - len(compared)
    if left_out:
        (narrator or Silent()).say(f"Left out of the ratios: {left_out} results without a counterpart.")
    if out is not None:
        from lightssl.reports.comparison import write_comparison  # brings matplotlib

        write_comparison(Path(out), read, compared)
    return compared
