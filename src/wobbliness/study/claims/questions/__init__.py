"""Further questions that a study answers, one file each: the folder is the list."""
