"""What is said of models that ship, one TOML file each."""
