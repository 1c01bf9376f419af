"""What models that are one VAE network share."""
