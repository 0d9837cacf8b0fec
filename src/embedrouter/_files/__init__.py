"""Files of texts: how each format is opened, the rows in it, and which fields of a row are its text and its id."""

from ._fields import Fields as Fields
from ._fields import RowProblemError as RowProblemError
from ._fields import values_at as values_at
from ._formats import DOCUMENTS as DOCUMENTS
from ._formats import GZIP as GZIP
from ._formats import MAX_FILE_SIZE as MAX_FILE_SIZE
from ._formats import MAX_NAMED_SIZE as MAX_NAMED_SIZE
from ._formats import SUFFIXES as SUFFIXES
from ._formats import FileProblemError as FileProblemError
from ._formats import Format as Format
from ._formats import Row as Row
from ._formats import format_of as format_of
from ._formats import opened as opened
from ._formats import read_document as read_document
from ._pyarrow import load_pyarrow as load_pyarrow
from ._rows import read_json as read_json
from ._rows import read_json_lines as read_json_lines
from ._rows import read_lines as read_lines
from ._rows import read_parquet as read_parquet
from ._rows import read_table as read_table
