"""C sources of the load tools, compiled where they are used."""
