"""How a subject is looked at: what runs a model does it in a fork of the process."""
