"""How the bundled network learns."""
