"""The work of recvae inside of other engines: each is imported when it is asked for."""
