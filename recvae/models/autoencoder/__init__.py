"""Code shared by the models that consist of one VAE network."""
