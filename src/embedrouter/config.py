"""Configuration of routers by TOML files.

    dimensions = 1024
    query_tier = "low"
    [budget]
    per_day = "5.00"
    [[models]]
    model = "voyage:voyage-4-large"
    [[models]]
    model = "voyage:voyage-4-lite"
    tier = "low"

A tiered configuration has a table ``[routers.NAME]`` of the same form for each tier instead. Keys are the arguments of
``Router`` and ``Model``; ``cache = false`` means no cache, and a list several, the fastest first; relative paths start
at the file's folder. A misspelt key is an error. API keys are not written here: ``api_key_env`` names the environment
variable.

A file that was found by search, rather than named, may be part of a repository from an untrusted author. So it may not
let a model run code with ``trust_remote_code``. It may read a key from the variables of the model's own provider alone,
and has to name the variable where it names an address, ``base_url``; then the log says once where texts and key go. Its
files (cache, ledger, catalogue, a model's folder) are in the file's folder or in the user's cache folder, also after
links are followed, and no cache, ledger or state is on a server.

A variable such as ``OPENAI_BASE_URL`` applies to models of such a file too: like the key it is the user's own, and no
file can set it. To ignore it would be the leak, because the key of a gateway and the texts would go to the vendor.
"""

import os
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from ._display import get_logger, hint_for, masked, shown_name
from .cache import default_folder, is_address, without_password
from .errors import ConfigError
from .limits import RetryPolicy
from .models import NO_FOLDERS, Model, RouterSettings, load_catalogue
from .redis import SCHEMES
from .spending import Budget

__all__ = ["ENVIRONMENT", "MISSING", "ONLY_IN_CODE", "Config", "given", "load"]

ENVIRONMENT = "EMBEDROUTER_CONFIG"
logger = get_logger("embedrouter.config")
MISSING = "only_in_code"
"""The entry of a described router that names what is not written down."""
ONLY_IN_CODE = {"name", "api_key", "client", "async_client", "azure_ad_token_provider", "backend", "embedder", "like"}


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _table(name: str, declared: type, *, without: Collection[str] = (), **other: Any) -> type[_Table]:
    """Return the table whose keys are the fields of a dataclass, which checks its numbers itself.

    Args:
        without: fields that a file cannot set.
        other: pydantic definitions of keys that TOML writes in another type than Python.
    """
    hints = get_type_hints(declared)
    numbers = {name for name, hint in hints.items() if {int, float, Decimal} & {hint, *get_args(hint)}}
    keys: dict[str, Any] = {
        item.name: (hints[item.name] | str | int | float if item.name in numbers else hints[item.name], None)
        for item in fields(declared)
        if item.name not in without
    }
    return create_model(name, __base__=_Table, **{**keys, **other})


def _named(models: Any) -> Any:
    """Return tables for models of which only the name is written, as in Python."""
    return [{"model": row} if isinstance(row, str) else row for row in models] if isinstance(models, list) else models


def _caps(budget: Any) -> Any:
    """Return the table of a budget that is written as a text, as in Python."""
    own = Budget.of(budget) if isinstance(budget, str) else None
    return {name: str(cap) for name, cap in own.caps.items()} if own else budget


_OfTag: Any = Annotated[_table("tags", Budget, tags=(dict[str, Any], None)), BeforeValidator(_caps)]
_Budget = _table("budget", Budget, tags=(dict[str, _OfTag], None))
_Retry = _table("retry", RetryPolicy)
_Model = _table("models", Model, without=ONLY_IN_CODE, model=(str, ...))
_Router = _table(
    "router",
    RouterSettings,
    without=("on_event", "clock", "sleep", "random"),
    models=(Annotated[list[_Model], BeforeValidator(_named)], Field(min_length=1)),  # type: ignore[valid-type]
    cache=(str | bool | list[str], None),
    budget=(Annotated[_Budget, BeforeValidator(_caps)], None),
    ledger=(str, None),
    retry=(_Retry, None),
    tiers=(list[str], None),
    catalog=(str, None),
    state=(str, None),
)


TABLES: dict[Any, Any] = {"models": _Model, "budget": _Budget, "retry": _Retry, "routers": _Router}
WRITTEN = {
    "models": 'models = ["openai:text-embedding-3-small"], or a table [[models]] for each',
    "model": 'model = "openai:text-embedding-3-small"',
    "budget": 'budget = "…/day"',
    "tags": 'a table [budget.tags] with "my-tag" = "…/day"',
    "retry": "a table [retry] with attempts = 3",
    "tiers": 'tiers = ["low", "high"], lowest first',
    "dimensions": "dimensions = 512",
}
"""How a setting is written whose value has another type."""
TOML = {
    **dict.fromkeys(("api_key", "key", "openai_api_key"), 'api_key_env = "OPENAI_API_KEY", the name of a variable'),
    **dict.fromkeys(("name", "model_name"), WRITTEN["model"]),
    **dict.fromkeys(("retries", "max_retries"), "attempts = 3, in a table [retry]"),
    **dict.fromkeys(("per_week", "daily", "limit"), 'per_day = "5.00"'),
    **dict.fromkeys(("url", "api_base"), 'base_url = "https://…/v1"'),
}
"""What is written in place of other names of keys."""


def _hint(error: Mapping[str, Any], form: type[Any]) -> str:
    """Return what to write, as TOML, in place of what is wrong."""
    *above, name = [part for part in error["loc"] if isinstance(part, str)]
    table = next((TABLES[part] for part in reversed(above) if part in TABLES), form)
    keys = f"Keys are {', '.join(sorted(table.model_fields))}."
    if error["type"] == "extra_forbidden":
        hint = hint_for(name, table.model_fields, TOML)
        return hint if hint and "(" not in hint else keys
    amount = error["input"] if type(error["input"]) in (int, float) else "5.00"
    if above[-2:] == ["budget", "tags"] and "value" not in error["type"]:
        return f'Write "{amount}/day", or a table [budget.tags.NAME] with per_day = "{amount}".'
    if name in WRITTEN:
        return f"Write {WRITTEN[name].replace('…', str(amount))}."
    return keys if error["type"] == "missing" else ""


class _Tiered(_Table):
    routers: dict[str, _Router] = Field(min_length=1)  # type: ignore[valid-type]
    query_tier: str | None = None
    document_tier: str | None = None
    tiers: list[str] | None = None


@dataclass(frozen=True)
class Config:
    """The content of a configuration file; ``router`` and ``tiered`` return constructor arguments."""

    path: Path
    content: Mapping[str, Any] = field(repr=False)  # a key may be in it by mistake
    named: bool
    """Whether the user named the file; otherwise a search found the file."""
    trusting: str = ""
    """The end of a refusal, for content that is no file: how to trust it."""

    @property
    def is_tiered(self) -> bool:
        """Whether the file describes a router for each tier."""
        return "routers" in self.content

    def routers(self) -> dict[str, dict[str, Any]]:
        """Return the arguments of every ``Router`` by tier; those of a single router have the empty string as key."""
        return self.tiered()[0] if self.is_tiered else {"": self.router()}

    def router(self) -> dict[str, Any]:
        """Return the arguments of ``Router``.

        Raises:
            ConfigError: a key or value is wrong; the message names it.
        """
        if self.is_tiered:
            raise ConfigError(f"{self.path} describes a router for each tier. Use TieredRouter.from_config.")
        if missing := self.content.get(MISSING):
            raise ConfigError(
                f"{self.path} is not complete, because neither keys nor objects are written down. It lacks "
                f"{'; '.join(missing)}. Build the router in code, and pass it: from_dict(data, router=router)."
            )
        return self._arguments(self._checked(_Router))

    def tiered(self) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
        """Return the arguments of each tier's ``Router``, and the other arguments of ``TieredRouter``.

        Raises:
            ConfigError: a key or value is wrong; the message names it.
        """
        if "models" in self.content:
            raise ConfigError(f"{self.path} describes a single router. Use Router.from_config.")
        table = self._checked(_Tiered)
        routers = {name: self._arguments(router) for name, router in table.routers.items()}
        return routers, table.model_dump(exclude_unset=True, exclude={"routers"})

    def _checked(self, form: type[Any]) -> Any:
        try:
            return form.model_validate(self.content)
        except ValidationError as error:  # its message quotes the file, which may contain a key
            first = error.errors(include_url=False)[0]
            where = ".".join(shown_name(part).strip("'") for part in first["loc"])
            story = f"{self.path}: {where}: {first['msg']}. {_hint(first, form)}".strip()
        raise ConfigError(story)

    def _arguments(self, table: Any) -> dict[str, Any]:
        found: dict[str, Any] = table.model_dump(exclude_unset=True)
        found["models"] = [self._model(row) for row in found["models"]]
        if tags := found.get("budget", {}).get("tags"):
            found["budget"]["tags"] = {name: self._built(Budget, **own) for name, own in tags.items()}
        for name, kind in (("budget", Budget), ("retry", RetryPolicy)):
            if name in found:
                found[name] = self._built(kind, **found[name])
        for name in ("catalog", "ledger"):
            if found.get(name, ":memory:") != ":memory:" and not found[name].startswith(SCHEMES):
                found[name] = self._located(found[name], name)
        if (
            not self.named
            and "catalog" in found
            and load_catalogue(found["catalog"]).servers != load_catalogue().servers
        ):
            raise self._refused(
                "declares servers in its catalog, which may have keys and texts sent to them", "Read it, then name it"
            )
        if (places := found.pop("cache", True)) is not True:  # True is the default folder
            several = isinstance(places, list)
            found["cache"] = (
                None if places is False else [self._cache(item) for item in places] if several else self._cache(places)
            )
        if not self.named and ("state" in found or str(found.get("ledger")).startswith(SCHEMES)):
            raise self._refused("keeps vectors or accounts on a server", "Read it, then name it")
        return found

    def _cache(self, place: str) -> str | Path:
        if place in NO_FOLDERS:
            return place
        if not is_address(place):
            return self._located(place, "cache")
        if not self.named:
            raise self._refused(f"takes vectors from {without_password(place)}", "Read it, then name it")
        return place

    def _model(self, row: dict[str, Any]) -> Model:
        model: Model = self._built(Model, row.pop("model"), **row)
        if not self.named:
            self._require_harmless(model)
        return model

    def _built(self, kind: type[Any], *given: Any, **settings: Any) -> Any:
        """Return an object of a class, of which an error names the file."""
        try:
            return kind(*given, **settings)
        except ConfigError as error:
            story = f"{self.path}: {error}"
        raise ConfigError(story)

    def _require_harmless(self, model: Model) -> None:
        """Refuse what a file of an untrusted author may not make a model do.

        Raises:
            ConfigError: the message says how to name the file, which is to trust it.
        """
        server = load_catalogue().servers.get(model.provider)
        own = server.keys if server else ()
        if model.trust_remote_code:
            raise self._refused(
                f"lets {model.name} run Python code on this machine", "Read that code and the file, then name the file"
            )
        if model.base_url and not model.api_key_env:
            raise self._refused(
                f"sends {model.name} to {model.base_url}, which would hand your default API key to that server",
                "Name the key's variable with api_key_env, or name the file",
            )
        if model.api_key_env and model.api_key_env not in own:
            raise self._refused(
                f"reads the key of {model.name} from a variable that may hold another program's secret",
                f"Such a file may name {' or '.join(own) or 'no variable'}. Use that, or name the file",
            )
        folder = Path(model.id).expanduser()
        if folder.is_absolute() or ".." in folder.parts or folder.is_dir():
            self._located(model.id, f"the model {model.name}")
        if model.base_url:
            _say_once(
                f"{self.path} was found by search, and sends texts and the key in {model.api_key_env} to "
                f"{model.base_url}. If you trust the file, name it, and this is not said again: {self._naming}."
                if not self.trusting
                else f"{self.path} sends texts and the key in {model.api_key_env} to {model.base_url}."
            )

    def _located(self, path: str, what: str) -> Path:
        place = self.path.parent / Path(path).expanduser()
        if self.named:
            return place
        place = place.resolve()
        if not any(place.is_relative_to(root.resolve()) for root in (self.path.parent, default_folder())):
            raise self._refused(
                f"places {what} outside of its own folder and of your cache folder", "Move it there, or name the file"
            )
        return place

    def _refused(self, story: str, remedy: str) -> ConfigError:
        if self.trusting:
            return ConfigError(f"{self.path} {story}. {self.trusting}")
        return ConfigError(f"{self.path} was found by search and {story}. {remedy}: {self._naming}.")

    @property
    def _naming(self) -> str:
        return f"from_config({self.path.name!r}) or ${ENVIRONMENT}"


@cache
def _say_once(story: str) -> None:
    logger.warning("%s", story)


def load(path: str | Path | None = None) -> Config:
    """Read the named file, or the first that exists of ``$EMBEDROUTER_CONFIG``, ``./embedrouter.toml`` and the table
    ``[tool.embedrouter]`` of ``./pyproject.toml``.

    Raises:
        ConfigError: there is no file, or the file cannot be read or is not TOML.
    """
    if named := path or os.environ.get(ENVIRONMENT):
        return Config(Path(named).expanduser().absolute(), _read(Path(named).expanduser()), named=True)
    here = Path.cwd()
    if (own := here / "embedrouter.toml").exists():
        return Config(own, _read(own), named=False)
    if (project := here / "pyproject.toml").exists():
        table = _read(project).get("tool", {}).get("embedrouter")
        if table is not None:
            return Config(project, table, named=False)
    raise ConfigError(
        f"No configuration: neither ${ENVIRONMENT}, nor {own}, nor [tool.embedrouter] in {project} exists. "
        "Write one, or pass its path."
    )


def given(content: Mapping[str, Any]) -> Config:
    """Return the configuration of a router of which the content is here, such as that of ``description.describe``."""
    return Config(Path("The configuration of the router"), content, named=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"The configuration {path} cannot be read ({error.strerror}). Check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = masked(str(error))
    raise ConfigError(f"{path} is not valid TOML: {reason}. Correct the file.") from ValueError(reason)
