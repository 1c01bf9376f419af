"""Structure-aware fuzzing of all that recvae reads from strangers; `python -m tests.fuzz --help` runs it.

A *kind* is a sort of input, such as model files. Its mutants are numbered: the first ones are written by hand, so that
every refusal of a loader is reached, and the others are drawn from (seed, kind, number), so that each can be made again
by itself. Each is judged in a child process that was forked from one warm parent.
"""
