"""The command line: a parser, what its arguments ask for, and one file for each group of commands."""
