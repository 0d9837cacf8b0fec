"""Move an index to another model while the old one goes on serving, and verify it before the switch.

A Chroma folder is filled with one model, then every text is embedded again into a new collection beside the old one. A
run that is stopped goes on where it was: nothing is lost or paid twice. With an API's model:
python examples/migrate_index.py openai:text-embedding-3-small

Needs the extras chroma, langchain and wordllama, the package langchain-chroma, and no key.
"""

import sys
from tempfile import TemporaryDirectory

from langchain_chroma import Chroma

from embedrouter import Router, migrate
from embedrouter.langchain import RouterEmbeddings
from embedrouter.stores import guard

old = Router(["wordllama:l2_supercat_256"], dimensions=64)
new = Router([sys.argv[1] if len(sys.argv) > 1 else "wordllama:l2_supercat_256"], budget="1.00/day")
pages = {
    "holiday": "Employees may take twenty-five days of paid holiday each year.",
    "laptop": "Report a lost laptop to the security desk within one hour.",
    "canteen": "The canteen serves hot lunch from noon until two.",
}

with TemporaryDirectory() as folder, old, new:
    store = Chroma("handbook", RouterEmbeddings(old), persist_directory=folder)
    guard(store, old)  # marks the collection with the space of its vectors
    store.add_texts(list(pages.values()), ids=list(pages))

    plan = migrate.plan(store, new)
    print(plan)
    moved = migrate.run(plan)
    print(f"{moved.rows} rows in {moved.name}")
    verification = migrate.verify(plan, queries=["When is lunch?"], old=old)
    print(verification)
    if verification.passed:
        migrate.switch(plan, verification=verification)  # migrate.switch(plan, undo=True) is the way back

    store = Chroma("handbook", RouterEmbeddings(new), persist_directory=folder)  # the same name, the new vectors
    print(f"{new.space}: {store.similarity_search('When is lunch?', k=1)[0].page_content}")
