"""Tables and pictures of the README and the guide, made from the recorded results."""
