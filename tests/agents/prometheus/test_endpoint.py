# SPDX-License-Identifier: MIT
"""What prometheus-source can be told, and the files that an endpoint names."""

import base64
from pathlib import Path
from typing import Any

import pytest

from agents.prometheus.access import AccessFiles, ScrapeError
from agents.prometheus.endpoint import Endpoint, endpoints_of
from agents.prometheus.source import PrometheusConfig
from bus.config import options
from bus.errors import ConfigError


def load(*endpoints: Any, **settings: Any) -> PrometheusConfig:
    return PrometheusConfig.load({"endpoints": list(endpoints), **settings})


@pytest.mark.parametrize(
    ("text", "address", "word", "where"),
    [
        ("localhost:9100", "http://localhost:9100/metrics", "localhost-9100", "localhost:9100"),
        ("web1", "http://web1/metrics", "web1", "web1:80"),
        ("127.0.0.1:9100/", "http://127.0.0.1:9100/metrics", "127_0_0_1-9100", "127.0.0.1:9100"),
        ("http://web1.example.org:8080/a?b=c", "http://web1.example.org:8080/a?b=c", "web1_example_org-8080", None),
        ("https://web1", "https://web1/metrics", "web1", "web1:443"),
        ("https://web1:443/x/", "https://web1:443/x/", "web1", "web1:443"),
        ("[::1]:9100", "http://[::1]:9100/metrics", "__1-9100", "[::1]:9100"),
    ],
)
def test_a_url_may_be_short(text: str, address: str, word: str, where: str | None) -> None:
    (endpoint,) = endpoints_of([text])
    assert (endpoint.address, endpoint.word) == (address, word)
    assert where is None or endpoint.where == where


def test_tables_and_urls_may_be_mixed() -> None:
    config = load("localhost:9100", {"url": "http://localhost:9187", "name": "postgres", "exclude": ["go_*"]})
    assert [endpoint.word for endpoint in endpoints_of(config.endpoints)] == ["localhost-9100", "postgres"]
    assert config.missing == ""


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("ftp://web1/", "'ftp://web1/' is not the URL of an endpoint, like"),
        ("", "is not the URL"),
        ("http://", "is not the URL"),
        ("http://web1/a b", "is not the URL"),
        ("http://web1/\r\nX: y", "is not the URL"),
        ("http://web1/#x", "is not the URL"),
        ("web1:port", "makes no sense: Port could not be cast"),
        ("web1:99999", "makes no sense: Port out of range"),
        ("http://[::1", "makes no sense: Invalid IPv6"),
        ({"url": "web1", "name": "a b"}, "is not the URL"),
        ({"url": "http://web1", "name": "a b"}, "name must be 1 to 60 of A-Z a-z 0-9 _ -, not 'a b'"),
        ({"url": "http://web1", "name": "a" * 61}, "name must be 1 to 60"),
        ({"url": "http://web1", "user": "me"}, "user and password_file go together"),
        ({"url": "http://web1", "password_file": "f"}, "user and password_file go together"),
        ({"url": "http://web1", "user": "a:b", "password_file": "f"}, "without ':'"),
        ({"url": "http://web1", "user": "a\nb", "password_file": "f"}, "user must be printable"),
        ({"url": "http://web1", "user": "a", "password_file": "f", "token_file": "g"}, "not both"),
        ({"url": "https://web1", "key_file": "f"}, "key_file needs the cert_file"),
        ({"url": "http://web1", "ca_file": "f"}, "are for https"),
        ({"url": "http://web1", "cert_file": "f"}, "are for https"),
        ({"url": "http://web1", "timeout": 0}, "timeout must be more than 0"),
        ({"url": "http://web1", "timeout": 9.5}, r"timeout of web1 is 9\.5 s: at most 0\.9 periods, 9 s"),
        ({"url": "http://web1", "max_size": 0}, r"endpoints\[0\]\.max_size"),
        ({"url": "http://web1", "password": "x"}, r"unknown key .password."),
        ({"name": "a"}, "missing required field `url`"),
    ],
)
def test_what_is_wrong_with_an_endpoint_is_said(table: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(table)


def test_two_endpoints_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two endpoints are called 'web1-9100': give one of them another name"):
        load("web1:9100", "http://web1:9100/other")


@pytest.mark.parametrize(
    "url",
    [
        "http://me:hunter2@web1/",
        "http://me:hunter2/b@web1/",
        "me:hunter2@web1:9100",
        "http:/me:hunter2@web1",
        "gopher://web1/?key=hunter2",
    ],
)
def test_no_error_shows_a_secret_of_a_url(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("endpoint", ["web1/x?key=hunter2", {"url": "http://web1/x?a=b&key=hunter2", "name": "w"}])
def test_what_stands_for_an_endpoint_in_a_log_has_no_query(endpoint: object) -> None:
    config = load(endpoint)
    for shown in (f"{config}", f"{config!r}", f"{endpoints_of(config.endpoints)}"):
        assert "web1/x?..." in shown
        assert "hunter2" not in shown
    assert endpoints_of(config.endpoints)[0].address.endswith("key=hunter2")


def test_a_password_in_a_url_is_answered_with_what_would_be_right() -> None:
    with pytest.raises(ConfigError, match="give user and password_file, or token_file"):
        load("http://me:hunter2@web1/")


def test_without_endpoints_it_is_said_how_to_name_them() -> None:
    assert load().missing == 'no endpoints; name them: [prometheus-source] endpoints = ["localhost:9100"]'


def test_endpoints_are_for_this_host_to_name() -> None:
    assert "endpoints" in PrometheusConfig.local_only


def test_every_option_is_described() -> None:
    (endpoints,) = [option for option in options(PrometheusConfig) if option.name == "endpoints"]
    assert endpoints.type == "list[str | table]"
    assert {option.name for option in endpoints.fields} == set(Endpoint.__struct_fields__)
    assert all(option.description for option in endpoints.fields)


@pytest.mark.parametrize(("period", "timeout_s"), [(10.0, 9.0), (0.5, 0.45), (3600.0, 30.0)])
def test_a_scrape_ends_before_the_next_begins(period: float, timeout_s: float) -> None:
    config = load("web1", {"url": "http://web2", "timeout": 0.25}, period=period)
    assert [config.timeout_of(endpoint) for endpoint in endpoints_of(config.endpoints)] == [timeout_s, 0.25]


# -- secrets and certificates --------------------------------------------------------------------------


def files(**settings: str) -> AccessFiles:
    return AccessFiles(Endpoint(url="https://web1", **settings))  # type: ignore[arg-type]


def test_without_files_there_is_nothing_to_read() -> None:
    assert not files().is_needed
    assert files(token_file="x").is_needed
    assert files(ca_file="x").is_needed
    assert files(user="me", password_file="x").is_needed


def test_a_token_is_read_each_time(tmp_path: Path) -> None:
    path = tmp_path / "token"
    access = files(token_file=str(path))
    for token in ("abc", "def"):
        path.write_text(f" {token}\n")
        assert access.read().authorization == f"Bearer {token}"
    assert "def" not in repr(access.read())


def test_a_user_and_a_password_make_basic_authentication(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("pässwörd:1\n")
    header = files(user="me", password_file=str(tmp_path / "password")).read().authorization
    assert base64.b64decode(header.removeprefix("Basic ")).decode() == "me:pässwörd:1"


@pytest.mark.parametrize("content", [b"", b" \n", b"hunter2\nmore", b"hunter2\x00", b"hunter2\xff", b"x" * 65537])
def test_a_file_that_holds_no_secret_is_named_and_not_shown(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(ScrapeError, match=r"token_file .*/token must hold one line") as caught:
        files(token_file=str(path)).read()
    assert "hunter2" not in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for settings in ({"token_file": "gone"}, {"user": "me", "password_file": "gone"}, {"ca_file": "gone"}):
        named = {name: str(tmp_path / value) if value == "gone" else value for name, value in settings.items()}
        with pytest.raises(ScrapeError, match="gone cannot be read: No such file or directory"):
            files(**named).read()


@pytest.mark.parametrize("option", ["ca_file", "cert_file"])
@pytest.mark.parametrize("content", ["", "nonsense\n"])
def test_what_is_no_certificate_is_said(tmp_path: Path, option: str, content: str) -> None:
    path = tmp_path / "cert.pem"
    path.write_text(content)
    with pytest.raises(ScrapeError, match=f"{option} .*cert.pem cannot be used: "):
        files(**{option: str(path)}).read()
