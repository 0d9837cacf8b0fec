"""Which model is worth its price on your own documents? Compare, and get the configuration of the best one.

Without queries, titles and sentences of the documents have to find these: here the pages of Python's own help. Each
model searches among its own vectors only. OpenAI's model takes part where there is a key for it.

Needs the extras compare and wordllama, and no key.
"""

import os
from pydoc_data.topics import topics

import embedrouter

models = ["wordllama:l2_supercat_256"]
if os.environ.get("OPENAI_API_KEY"):
    models.append("openai:text-embedding-3-small")

found = embedrouter.compare(topics, models=models, dimensions=[64, 128, 256], dtypes=["int8"], cache="./cache")
print(found)

choice = found.best_under(dollars_per_million="0.50")
print(choice.to_toml())
