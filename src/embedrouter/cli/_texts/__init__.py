"""The texts of commands: which files are taken, how each is read, and which parts of it are the texts."""

from ._files import MAGIC as MAGIC
from ._list import list_texts as list_texts
from ._options import TextOptions as TextOptions
from ._skipped import Skipped as Skipped
from ._texts import LocatedText as LocatedText
from ._texts import Texts as Texts
from ._texts import chunks as chunks
from ._texts import usable_texts as usable_texts
