"""The command line: the parser, inputs and outputs that commands share, and a module for each group of commands."""
