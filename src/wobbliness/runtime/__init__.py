"""What the program needs of its process: progress, threads, Ctrl-C, files, errors, the terminal."""
