"""The benchmark: one data set, one split, all models scored by one evaluator; the results and the report."""
