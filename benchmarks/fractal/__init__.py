"""Real data expanded fractally: as large as is asked for, and still like real data. For large runs."""

from benchmarks.fractal.expansion import LEAST as LEAST
from benchmarks.fractal.expansion import Expansion as Expansion
from benchmarks.fractal.expansion import block_row as block_row
from benchmarks.fractal.expansion import expand as expand
from benchmarks.fractal.files import fractal_table as fractal_table
from benchmarks.fractal.files import run_fractal as run_fractal
from benchmarks.fractal.files import write_events as write_events
from benchmarks.fractal.likeness import likeness as likeness
