"""Tables of events from text files and from data frames."""
