"""Results of runs, their tables and figures, and the files of a report."""
