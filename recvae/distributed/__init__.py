"""Training in several processes: the communicator, the launch, and the detection of lost ranks."""
