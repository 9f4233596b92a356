"""The presets that come with the program: one TOML file tells everything about one way to train."""
