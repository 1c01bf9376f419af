"""Results of a benchmark -> what a person reads: a table on a terminal, a page to pass around."""

from recvae.benchmark.report.page import PAGE, check_page, write_page
from recvae.benchmark.report.terminal import print_results

__all__ = ["PAGE", "check_page", "print_results", "write_page"]
