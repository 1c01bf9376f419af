"""The benchmark: one data set, one split, every model scored by one evaluator; its results and its report."""
