"""The paper's claims, one file each: the folder is the list."""
