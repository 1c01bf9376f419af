"""Reports of a benchmark: a table on the terminal, and an HTML page."""

from recvae.benchmark.report.page import PAGE, check_page, write_page
from recvae.benchmark.report.terminal import print_results

__all__ = ["PAGE", "check_page", "print_results", "write_page"]
