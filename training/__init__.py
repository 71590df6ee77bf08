"""Training: a core and recipes that know only files, and the Django half that runs them."""
