"""Large data, many processes, services, stops and signals."""
