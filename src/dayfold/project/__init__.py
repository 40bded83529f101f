"""Where things are kept: paths, params, files, git, DVC."""
