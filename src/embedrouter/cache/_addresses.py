"""Tell addresses of caches from folders, and show them without their secrets."""


def is_address(cache: object) -> bool:
    """Return whether this is the address of a server or of a file system of fsspec, and not a folder."""
    return isinstance(cache, str) and "://" in cache


def without_password(place: str) -> str:
    """Return a folder as it is, and an address without user, password and options, for messages."""
    if not is_address(place):
        return place
    scheme, _, rest = place.partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def has_secret(address: str) -> bool:
    """Return whether an address has a user, a password or a key, which is written nowhere."""
    rest, _, options = address.partition("://")[2].partition("?")
    names = [option.partition("=")[0].lower() for option in options.split("&")]
    return "@" in rest.partition("/")[0] or any(word in name for name in names for word in ("user", "pass", "key"))
