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
``Router`` and ``Model``; ``cache = false`` means no cache; relative paths start at the file's folder. A misspelt key is
an error. API keys are not written here: ``api_key_env`` names the environment variable.

A file that was found by search, rather than named, may be part of a repository from an untrusted author. Such a file
must not send the user's default key to another server: ``base_url`` requires ``api_key_env``. Nor may it let a model
run code with ``trust_remote_code``. A variable such as ``OPENAI_BASE_URL`` applies to models of such a file too: like
the key it is the user's own, and no file can set it. To ignore it would be the leak, because the key of a gateway and
the texts would go to the vendor.
"""

import os
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from ._display import masked, shown_name
from .errors import ConfigError
from .limits import RetryPolicy
from .models import Model, RouterSettings
from .spending import Budget

__all__ = ["ENVIRONMENT", "Config", "load"]

ENVIRONMENT = "EMBEDROUTER_CONFIG"
ONLY_IN_CODE = {"name", "api_key", "client", "async_client", "azure_ad_token_provider", "backend", "embedder"}


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _table(name: str, declared: type, *, without: Collection[str] = (), **other: Any) -> type[_Table]:
    """Return the table whose keys are the fields of a dataclass.

    Args:
        without: fields that a file cannot set.
        other: pydantic definitions of keys that TOML writes in another type than Python.
    """
    hints = get_type_hints(declared)
    keys: dict[str, Any] = {
        item.name: (hints[item.name], None) for item in fields(declared) if item.name not in without
    }
    return create_model(name, __base__=_Table, **{**keys, **other})


_Budget = _table("budget", Budget)
_Retry = _table("retry", RetryPolicy)
_Model = _table("models", Model, without=ONLY_IN_CODE, model=(str, ...))
_Router = _table(
    "router",
    RouterSettings,
    without=("clock", "sleep", "random"),
    models=(list[_Model], Field(min_length=1)),  # type: ignore[valid-type]
    cache=(str | bool, None),
    budget=(_Budget, None),
    ledger=(str, None),
    retry=(_Retry, None),
    tiers=(list[str], None),
    catalog=(str, None),
)


class _Tiered(_Table):
    routers: dict[str, _Router] = Field(min_length=1)  # type: ignore[valid-type]
    query_tier: str | None = None
    document_tier: str | None = None
    tiers: list[str] | None = None


@dataclass(frozen=True)
class Config:
    """The content of a configuration file; ``router`` and ``tiered`` return constructor arguments."""

    path: Path
    content: Mapping[str, Any]
    named: bool
    """Whether the user named the file; otherwise a search found the file."""

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
            first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(shown_name(part).strip("'") for part in first["loc"])
        hint = f" Keys are {', '.join(sorted(form.model_fields))}." if len(first["loc"]) == 1 else ""
        raise ConfigError(f"{self.path}: {where}: {first['msg']}.{hint}")

    def _arguments(self, table: Any) -> dict[str, Any]:
        given: dict[str, Any] = table.model_dump(exclude_unset=True)
        given["models"] = [self._model(row) for row in given["models"]]
        for name, kind in (("budget", Budget), ("retry", RetryPolicy)):
            if name in given:
                given[name] = kind(**given[name])
        for name in ("catalog", "ledger"):
            if given.get(name, ":memory:") != ":memory:":
                given[name] = self._relative(given[name])
        if (cache := given.pop("cache", True)) is not True:  # True is the default folder
            given["cache"] = None if cache is False else cache if "://" in cache else self._relative(cache)
        return given

    def _model(self, row: dict[str, Any]) -> Model:
        model = Model(row.pop("model"), **row)
        found, named = f"{self.path} was found by search and", f"from_config({self.path.name!r}) or ${ENVIRONMENT}"
        if not self.named and row.get("trust_remote_code"):
            raise ConfigError(
                f"{found} lets {model.name} run Python code on this machine. Read that code and the file, then name "
                f"the file: {named}."
            )
        if not self.named and row.get("base_url") and not row.get("api_key_env"):
            raise ConfigError(
                f"{found} sends {model.name} to {row['base_url']}, which would hand your default API key to that "
                f"server. Name the key's variable with api_key_env, or name the file: {named}."
            )
        return model

    def _relative(self, path: str) -> Path:
        return self.path.parent / Path(path).expanduser()


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


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"The configuration {path} cannot be read ({error.strerror}). Check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = masked(str(error))
    raise ConfigError(f"{path} is not valid TOML: {reason}. Correct the file.") from ValueError(reason)
