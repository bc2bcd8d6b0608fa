"""Images from files: arrays, pictures, tables and hub data sets, in a classifier's input shape."""

from wobbliness.images.fitting import fit_images as fit_images
from wobbliness.images.image_set import ImageSet as ImageSet
from wobbliness.images.reading import read_images as read_images
