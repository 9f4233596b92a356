"""A backend, a model package and a writer for Vastus, as small as they get."""
