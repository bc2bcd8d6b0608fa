"""Changes of a picture as a whole: brightness, sharpness, place and shape."""
