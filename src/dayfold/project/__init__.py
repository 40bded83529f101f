"""Where things are and how they are kept: paths, params, files, git and DVC."""
