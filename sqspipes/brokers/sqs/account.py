"""Account: who calls, where and how, and the boto3 clients made of it."""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.loaders import create_loader
from botocore.utils import get_environ_proxies

from sqspipes.brokers.rules import lack_of_files
from sqspipes.brokers.sqs.credentials import Credentials
from sqspipes.brokers.sqs.errors import translated, unfetched
from sqspipes.defaults import TRANSPORTS
from sqspipes.errors import BrokerError, BrokerUnavailableError, CredentialsError, OptionError
from sqspipes.support.urls import shown, split_or_none

#: Seconds for a connection to be made, and for an answer. A poll is answered within 20.
CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 15.0
POLL_TIMEOUT = 30.0

#: Connections that are kept at most.
CONNECTIONS = 64

_PROXY = re.compile(r"(https?:)?(//)?([^\s/@?#]+@)?(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d+)?/?", re.IGNORECASE)

_WAYS = (
    "Give aws_key= and aws_secret=, or the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a "
    "profile with AWS_PROFILE), or a boto3 session with session=. Without an account: "
    "SQSPIPES_BROKER=sqlite:///pipe.db"
)
_REGIONS = (
    "Give aws_region=, or the environment (AWS_REGION, AWS_DEFAULT_REGION, or a profile that has a region), "
    "or a boto3 session with session=. Without an account: SQSPIPES_BROKER=sqlite:///pipe.db"
)


@dataclass(frozen=True)
class Account:
    """Who calls, and where: what is not given is found as boto3 finds it. The secret has no repr."""

    key: str | None = None
    secret: str | None = field(default=None, repr=False)
    region: str | None = None
    endpoint_url: str | None = field(default=None, repr=False)
    session: Any = field(default=None, repr=False)
    transport: str = "lean"

    def __post_init__(self) -> None:
        if bool(self.key) != bool(self.secret):
            there, missing = ("aws_key", "aws_secret") if self.key else ("aws_secret", "aws_key")
            raise OptionError(f"{there} is given without {missing}: give both or neither")
        if self.key and self.session is not None:
            raise OptionError("aws_key and session are both given: give one of them")
        if self.transport not in TRANSPORTS:
            raise OptionError(
                f"transport is {self.transport!r}: allowed is {' or '.join(map(repr, TRANSPORTS))}"
            )


class Access:
    """An account's session, region and credentials, found; nothing is sent to SQS yet."""

    def __init__(self, account: Account) -> None:
        try:
            self._session = account.session or _session(account)
            self._endpoint_url = account.endpoint_url
            self._region = account.region or self._session.region_name or os.environ.get("AWS_REGION")
            if not self._region:
                raise CredentialsError(f"no AWS region is set. {_REGIONS}")
            found = self._session.get_credentials()
            if found is None:
                raise CredentialsError(f"no AWS credentials were found. {_WAYS}")
        except BotoCoreError as error:
            raise _explained(error) from error
        except OSError as error:
            # A credential_process that cannot be started.
            raise unfetched(error, before=False) from error
        self.credentials = Credentials(found)

    def client(self, read_timeout: float) -> Any:
        """Return a new boto3 client."""
        config = Config(
            # Whoever asks repeats what failed, knows what may be repeated, and tells of it.
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=read_timeout,
            max_pool_connections=CONNECTIONS,
            tcp_keepalive=True,
            parameter_validation=False,
            user_agent_extra="sqspipes",
        )
        region, endpoint_url = self._region, self._endpoint_url
        if endpoint_url is not None:
            _check_endpoint(endpoint_url)
        try:
            client = self._session.client("sqs", region_name=region, endpoint_url=endpoint_url, config=config)
        except ValueError as error:
            text = "this is no URL" if "@" in str(error) else str(error)
            failure = OptionError(f"endpoint_url is {_shown(endpoint_url)}, region {region!r}: {text}")
        except BotoCoreError as error:
            raise _explained(error) from error
        except OSError as error:
            raise BrokerUnavailableError(f"connect: {error}") from error
        else:
            _check_endpoint(client.meta.endpoint_url)
            _check_proxies(client)
            _check_bundle(client)
            return client
        raise failure  # Here, as the other error shows the URL as it is.


def _shown(url: str | None) -> str:
    return repr(None if url is None else shown(url))


def _check_endpoint(url: str) -> None:
    """Refuse an endpoint with a password: it would be sent to nobody, and be in every error's text."""
    if split_or_none(url) is None or "@" in url or "?" in url or "#" in url:
        allowed = "allowed is http or https with host, port and path, without user, password and query"
        raise OptionError(f"endpoint_url is {_shown(url)}: {allowed}")


def _check_bundle(client: Any) -> None:
    """Name a file of certificates that cannot be used; the error of a connection does not."""
    verify = getattr(client._endpoint.http_session, "_verify", None)
    if not isinstance(verify, str) or not client.meta.endpoint_url.startswith("https:"):
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(verify)
    except OSError as error:
        text = f"the CA bundle {verify!r} cannot be used: {error.strerror or error}"
        if lack_of_files(error):
            raise BrokerUnavailableError(text) from error
        where = "Look at AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE and ca_bundle of the profile"
        raise BrokerError(f"{text}. {where}") from error


def _check_proxies(client: Any) -> None:
    """Refuse a proxy that no request could be sent through: what is told of it later has its password."""
    proxies = client.meta.config.proxies or get_environ_proxies(client.meta.endpoint_url)
    for scheme in ("http", "https"):
        url = str(proxies.get(scheme) or "")
        if url and not _PROXY.fullmatch(url):
            allowed = "allowed is http://[user:password@]host:port, special characters written with %"
            raise OptionError(f"the proxy for {scheme} is {_shown(url)}: {allowed}")


@lru_cache(maxsize=1)
def _loader(data_path: str | None) -> Any:
    """Return what reads and keeps the models of AWS's services: to read them is most of what a new client costs."""
    return create_loader(data_path)


def _session(account: Account) -> Any:
    session = botocore.session.get_session()
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    # For the token services: whoever waits for credentials is waited for in turn.
    config = Config(
        retries={"total_max_attempts": 2, "mode": "standard"},
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
    )
    session.set_default_client_config(config)
    return boto3.Session(
        aws_access_key_id=account.key, aws_secret_access_key=account.secret, botocore_session=session
    )


def _explained(error: BotoCoreError) -> Exception:
    found = translated(error, "connect", "")
    return CredentialsError(f"{error}. {_WAYS}") if isinstance(found, CredentialsError) else found
