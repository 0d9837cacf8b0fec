"""Keep models, tiers and budget in a file instead of in code.

A misspelt key is an error. The file holds no API key, so the file may be committed. Without an argument ``from_config``
looks for $EMBEDROUTER_CONFIG, ./embedrouter.toml and [tool.embedrouter] in ./pyproject.toml.

Needs VOYAGE_API_KEY.
"""

from pathlib import Path

from embedrouter import Router

router = Router.from_config(Path(__file__).with_name("embedrouter.toml"))
print(router)

document = router.embed(["Configured, not coded"], input_type="document")
query = router.embed(["What is configured?"], input_type="query")

for result in (document, query):
    print(f"{result.models[0]}: {result.space}, ${result.usage.cost:.8f}")
