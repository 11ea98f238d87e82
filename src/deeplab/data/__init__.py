"""Data sets: open them, check them, convert them, and feed them to a network.

Only ``transforms`` and ``loader`` need torch; they are imported by their own names.
"""

from deeplab.data.layouts import list_splits as list_splits
from deeplab.data.layouts import open_dataset as open_dataset
from deeplab.data.masks import IGNORE as IGNORE
from deeplab.data.sample import Dataset as Dataset
from deeplab.data.sample import FileDataset as FileDataset
from deeplab.data.sample import Sample as Sample
