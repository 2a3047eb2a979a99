"""One federated round: clients, server, methods."""
