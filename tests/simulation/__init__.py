"""Stories on the pretended broker."""
