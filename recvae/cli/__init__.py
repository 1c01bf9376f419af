"""The command line: the parser, shared inputs and outputs, and one module per group of commands."""
