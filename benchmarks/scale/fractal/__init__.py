"""Real data expanded fractally: as large as is asked for, and still like real data. For large runs."""

from benchmarks.scale.fractal.expansion import LEAST as LEAST
from benchmarks.scale.fractal.expansion import Expansion as Expansion
from benchmarks.scale.fractal.expansion import block_row as block_row
from benchmarks.scale.fractal.expansion import expand as expand
from benchmarks.scale.fractal.files import fractal_table as fractal_table
from benchmarks.scale.fractal.files import run_fractal as run_fractal
from benchmarks.scale.fractal.files import write_events as write_events
from benchmarks.scale.fractal.likeness import likeness as likeness
