"""What is learned from: data sets, tasks and streams of tasks, and batches of them."""

from neuropil.data.arrays import Arrays as Arrays
from neuropil.data.batching import batches as batches
from neuropil.data.batching import check_batch as check_batch
from neuropil.data.batching import gather as gather
from neuropil.data.batching import n_batches as n_batches
from neuropil.data.cache import cache_directory as cache_directory
from neuropil.data.fetching import fetch as fetch
from neuropil.data.huggingface import from_huggingface as from_huggingface
from neuropil.data.images import CatalogueEntry as CatalogueEntry
from neuropil.data.images import Images as Images
from neuropil.data.images import catalogue as catalogue
from neuropil.data.images import load as load
from neuropil.data.images import own_images as own_images
from neuropil.data.streams import by_name as by_name
from neuropil.data.streams import permuted as permuted
from neuropil.data.streams import rotated as rotated
from neuropil.data.streams import split as split
from neuropil.data.streams import stream as stream
from neuropil.data.streams import task_from_arrays as task_from_arrays
from neuropil.data.task import Batch as Batch
from neuropil.data.task import Samples as Samples
from neuropil.data.task import Stream as Stream
from neuropil.data.task import Task as Task
