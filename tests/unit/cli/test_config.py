"""The configuration: each flag from its first source, validated, with errors that help."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.address import HostPort
from gateway.core.unix_address import UnixAddress
from supervisor.core.config import Config, StaticTarget, build, find_config_file
from supervisor.core.config_error import ConfigError
from supervisor.core.effective import Source
from supervisor.core.flag_readers import network
from supervisor.core.flags import BY_NAME, FLAGS, Flag, FlagKind

GOOD = {
    "endpoints": "a:1,https://b:2",
    "discovery-srv": "Example.com.",
    "discovery-srv-name": "blue",
    "discovery-refresh": "90s",
    "member-sync": "30s",
    "removal-grace": "0s",
    "drain-endpoints": "A:1,https://b:2",
    "prefer": "10.1.0.0/16,fd00::/8",
    "slow-start": "30s",
    "close-spread": "5s",
    "nameserver": "10.0.0.53,[::1]:5353",
    "insecure-discovery": "true",
    "trusted-ca-file": "/ca.pem",
    "listen-addr": ":1,[::1]:2",
    "allow": "10.0.0.0/8,2001:DB8::/32,192.0.2.7",
    "proxy-in": "192.0.2.0/24,unix",
    "proxy-out": "v2",
    "source-addr": "192.0.2.9,2001:DB8::9",
    "max-sessions": "100",
    "max-session-rate": "250",
    "max-session-age": "12h",
    "rebalance": "10m",
    "idle-timeout": "1h",
    "drain-timeout": "0s",
    "keepalive-time": "20s",
    "keepalive-interval": "5s",
    "keepalive-probes": "3",
    "tcp-user-timeout": "0s",
    "dial-timeout": "1s",
    "dial-hedge": "0",
    "balance": "least-sessions",
    "host-seed": "rack 7",
    "on-inactive": "close",
    "retry-delay": "10s",
    "health-check": "https",
    "health-path": "/readyz?verbose",
    "health-port": "2381",
    "health-interval": "1s",
    "health-idle-interval": "2m",
    "health-min-active": "30%",
    "health-timeout": "500ms",
    "health-rise": "2",
    "health-fall": "3",
    "health-cert-file": "/c.pem",
    "health-key-file": "/k.pem",
    "workers": "4",
    "pin-workers": "1",
    "worker-timeout": "10s",
    "worker-max-age": "24h",
    "handover": "T",
    "admin-addr": "127.0.0.1:2381,unix:/run/g.sock",
    "admin-host": "GW.example.com.,gw",
    "log-level": "debug",
    "log-format": "json",
    "access-log": "TRUE",
    "config-file": "/etc/g.toml",
}

EXPECTED = Config(
    endpoints=(StaticTarget(HostPort("a", 1)), StaticTarget(HostPort("b", 2), tls=True)),
    endpoints_given=True,
    discovery_srv="example.com",
    discovery_srv_name="blue",
    discovery_refresh="fixed",
    discovery_refresh_s=90.0,
    member_sync_s=30.0,
    removal_grace_s=0.0,
    drain_endpoints=("a:1", "b:2"),
    prefer=(ip_network("10.1.0.0/16"), ip_network("fd00::/8")),
    slow_start_s=30.0,
    close_spread_s=5.0,
    nameserver=(HostPort("10.0.0.53", 53), HostPort("::1", 5353)),
    insecure_discovery=True,
    trusted_ca_file="/ca.pem",
    listen_addr=(HostPort("", 1), HostPort("::1", 2)),
    allow=("10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32"),
    proxy_in=("192.0.2.0/24", "unix"),
    proxy_out="v2",
    source_addr=("192.0.2.9", "2001:db8::9"),
    max_sessions=100,
    max_session_rate=250,
    max_session_age_s=43200.0,
    rebalance_s=600.0,
    idle_timeout_s=3600.0,
    drain_timeout_s=0.0,
    keepalive_time_s=20.0,
    keepalive_interval_s=5.0,
    keepalive_probes=3,
    tcp_user_timeout_s=0.0,
    dial_timeout_s=1.0,
    dial_hedge_s=0.0,
    balance="least-sessions",
    host_seed="rack 7",
    on_inactive="close",
    retry_delay_s=10.0,
    health_check="https",
    health_path="/readyz?verbose",
    health_port=2381,
    health_interval_s=1.0,
    health_idle_interval_s=120.0,
    health_min_active=30,
    health_timeout_s=0.5,
    health_rise=2,
    health_fall=3,
    health_cert_file="/c.pem",
    health_key_file="/k.pem",
    workers=4,
    pin_workers=True,
    worker_timeout_s=10.0,
    worker_max_age_s=86400.0,
    handover=True,
    admin_addr=("127.0.0.1:2381", "unix:/run/g.sock"),
    admin_host=("gw.example.com", "gw"),
    log_level="debug",
    log_format="json",
    access_log=True,
    config_file="/etc/g.toml",
)


def from_flags(**flags: str) -> Config:
    return build({name.replace("_", "-"): [text] for name, text in flags.items()}, {}, {})


def test_the_table_and_the_fields_agree() -> None:
    """Every field of Config is some flag's, and every flag has a field."""
    derived = {
        "endpoints_given",
        "discovery_refresh_s",
        "effective",
        "misspelled",
        "wrong_but_overridden",
    }
    names = {field.name for field in dataclasses.fields(Config)} - derived
    assert {flag.field for flag in FLAGS} == names
    assert GOOD.keys() == BY_NAME.keys()


def test_nothing_given() -> None:
    """Without any source the configuration is the defaults."""
    assert build({}, {}, {}) == Config()


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_defaults_are_what_help_says(flag: Flag) -> None:
    """The default that help shows is a value that the flag takes, and means the default."""
    if flag.instead_of_empty:
        assert flag.default == ""
        return
    config = build({flag.name: [flag.default]}, {}, {})
    assert dataclasses.replace(config, endpoints_given=False) == Config()


@pytest.mark.parametrize(
    ("interval", "idle", "expected_s", "shown"),
    [
        ("300ms", None, 1.2, "1.2s"),
        ("20s", None, 60.0, "60s"),
        ("5m", None, 300.0, "5m0s"),
        ("1s", "30s", 30.0, "30s"),
        (None, None, 60.0, "60s"),
    ],
)
def test_idle_interval_follows_a_given_interval(
    interval: str | None, idle: str | None, expected_s: float, shown: str
) -> None:
    """Who asks for quick probes alone gets quick probes of idle endpoints, too, and is told so."""
    given = {"health-interval": interval, "health-idle-interval": idle}
    config = build({name: [text] for name, text in given.items() if text}, {}, {})
    assert config.health_idle_interval_s == pytest.approx(expected_s)
    (told,) = (each for each in config.effective if each.flag == "health-idle-interval")
    assert (told.value, told.source) == (shown, Source.FLAG if idle else Source.DEFAULT)


def test_all_flags() -> None:
    """Every flag of the command line arrives in its field."""
    assert build({name: [text] for name, text in GOOD.items()}, {}, {}) == EXPECTED


def test_all_variables() -> None:
    """Every flag has a variable; others are none of our business."""
    environ = {"GATEWAY_" + name.upper().replace("-", "_"): text for name, text in GOOD.items()}
    assert build({}, environ | {"GATEWAY_PORT": "tcp://10.0.0.1:80"}, {}) == EXPECTED


def test_all_keys() -> None:
    """Every flag but the file itself can be a key of the config file, as text."""
    document = {name: text for name, text in GOOD.items() if name != "config-file"}
    assert build({}, {}, document) == dataclasses.replace(EXPECTED, config_file="")


def test_keys_of_their_own_type() -> None:
    """The config file may use lists, booleans and numbers where they are meant."""
    document = {
        "endpoints": ["a:1", "b:2,c:3"],
        "access-log": True,
        "handover": False,
        "workers": 3,
        "idle-timeout": 0,
        "nameserver": [],
    }
    config = build({}, {}, document)
    assert [str(target.address) for target in config.endpoints] == ["a:1", "b:2", "c:3"]
    assert (config.access_log, config.handover, config.workers) == (True, False, 3)
    assert (config.idle_timeout_s, config.nameserver) == (0.0, ())


@given(st.sampled_from(FLAGS), st.lists(st.sampled_from("fed"), unique=True))
def test_precedence(flag: Flag, given: list[str]) -> None:
    """A flag beats the variable, the variable beats the file, each flag for itself."""
    if flag.name in ("config-file", "discovery-srv-name", "health-cert-file", "health-key-file"):
        return
    wrong = {"f": "flag\0", "e": "env\0", "d": "doc\0"}
    for first in (source for source in "fed" if source in given):
        texts = wrong | {first: GOOD[flag.name]}
        config = build(
            {flag.name: [texts["f"]]} if "f" in given else {},
            {flag.variable: texts["e"]} if "e" in given else {},
            {flag.name: texts["d"]} if "d" in given else {},
        )
        assert getattr(config, flag.field) == getattr(EXPECTED, flag.field)
        break


def test_repeated_flags() -> None:
    """A list flag adds up, any other takes the last; the same address counts once."""
    config = build(
        {"endpoints": ["http://a:1", "b:1, https://A:1"], "retry-delay": ["1s", "2s"]}, {}, {}
    )
    assert config.endpoints == (
        StaticTarget(HostPort("a", 1), tls=True),
        StaticTarget(HostPort("b", 1)),
    )
    assert config.retry_delay_s == 2.0


def test_empty_texts() -> None:
    """A variable without text is not set; a flag without takes back what a weaker source says."""
    assert build({}, {"GATEWAY_ENDPOINTS": "", "GATEWAY_ACCESS_LOG": ""}, {}) == Config()
    config = build({"admin-addr": [""], "discovery-srv": [""]}, {"GATEWAY_ADMIN_ADDR": ":1"}, {})
    assert config == Config()


@pytest.mark.parametrize("name", ["allow", "proxy-in", "source-addr"])
def test_a_list_that_restricts_is_never_empty(name: str) -> None:
    """Whatever the source: a template that came out empty opens nothing silently."""
    flag = BY_NAME[name]
    sources: list[tuple[dict[str, list[str]], dict[str, str], dict[str, Any], str]] = [
        ({name: [""]}, {}, {}, f"--{name}"),
        ({name: ["", ""]}, {}, {}, f"--{name}"),
        ({}, {flag.variable: ""}, {name: [flag.example]}, flag.variable),
        ({}, {}, {name: []}, f"{name} in the config file"),
        ({}, {}, {name: ""}, f"{name} in the config file"),
        ({}, {}, {name: [""]}, f"{name} in the config file"),
        ({}, {flag.default_variable: ""}, {}, flag.default_variable),
    ]
    for flags, environ, document, source in sources:
        with pytest.raises(ConfigError) as caught:
            build(flags, environ, document)
        assert str(caught.value) == f'{source} "": {flag.instead_of_empty}'
    for text in (" ", ",", f"{flag.example},"):
        with pytest.raises(ConfigError):
            build({name: [text]}, {}, {})
        with pytest.raises(ConfigError):
            build({}, {flag.variable: text}, {})


@pytest.mark.parametrize("name", ["nameserver", "drain-endpoints", "prefer", "admin-addr"])
def test_a_list_that_may_name_nothing(name: str) -> None:
    """Nothing is what these mean without a value, and an empty one takes a weaker source back."""
    for nothing in ([], "", [""]):
        assert build({}, {}, {name: nothing}) == Config()
    assert build({name: [""]}, {}, {name: GOOD[name]}) == Config()
    assert build({}, {BY_NAME[name].variable: ""}, {}) == Config()


@pytest.mark.parametrize("name", ["endpoints", "listen-addr"])
def test_a_list_that_is_needed(name: str) -> None:
    """The default takes the place of an empty variable, and of nothing else."""
    assert build({}, {BY_NAME[name].variable: ""}, {}) == Config()
    for flags, document in (({name: [""]}, {}), ({}, {name: []}), ({}, {name: ""})):
        with pytest.raises(ConfigError, match="the port is missing"):
            build(flags, {}, document)


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0/0", "10.0.0.0/8", "10.1.2.3/32", "192.0.2.128/25", "255.255.255.255/32", "1.2.3.4",
        "10.0.0.0/08", "10.0.0.0/255.0.0.0", "fd00::/8", "::ffff:1.2.3.0/120", "10.0.0.1/8",
        "10.0.0.0/33", "010.0.0.0/8", "256.0.0.0/8", "10.0.0/24", "10.0.0.0/", "10.0.0.0/8 ", "",
    ],
)  # fmt: skip
def test_networks_are_read_as_ipaddress_reads_them(text: str) -> None:
    """The usual spelling has a way of its own, because 50,000 of them held the master's loop."""
    try:
        expected = str(ip_network(text))
    except ValueError:
        with pytest.raises(ValueError, match="expected"):
            network(text)
    else:
        assert network(text) == expected


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("endpoints", "", '--endpoints "": the port is missing'),
        ("endpoints", "a:1,", '--endpoints "": the port is missing'),
        ("endpoints", "a:1,b", '--endpoints "b": the port is missing, expected host:port'),
        ("listen-addr", "", "the port is missing"),
        ("nameserver", "1.1.1.1,,", "expected an IP address"),
        ("workers", "0", "expected a whole number from 1 to 256, or auto"),
        ("workers", "-1", "from 1 to 256"),
        ("workers", "many", "from 1 to 256"),
        ("workers", "257", "from 1 to 256"),
        ("workers", "9" * 5000, "from 1 to 256"),
        ("workers", "١", "from 1 to 256"),
        ("retry-delay", "0", "expected at least 10ms"),
        ("retry-delay", "-5s", "negative"),
        ("retry-delay", "5", "unit is missing"),
        ("retry-delay", "", "a value is missing, such as 1m0s"),
        ("retry-delay", '"5s"', "expected it without the quotes"),
        ("endpoints", "'a:1,b:2'", "\"'a:1,b:2'\": expected it without the quotes"),
        ("endpoints", 'a:1, "b:2"', "expected it without the quotes"),
        ("access-log", '" yes', "expected true or false"),
        ("keepalive-time", "10h", "expected at least 1s and at most 9h6m7s"),
        ("tcp-user-timeout", "1us", "or 0s: the kernel's default"),
        ("tcp-user-timeout", "25000h", "at most"),
        ("discovery-refresh", "never", "or one of ttl, off"),
        ("member-sync", "0s", "expected at least 100ms; or off"),
        ("member-sync", "always", "; or off"),
        ("discovery-refresh", "0s", "or one of ttl, off"),
        ("health-check", "TCP", "expected auto, tcp, tls, http, https, etcd or off"),
        ("health-port", "0", "whole number from 1 to 65535"),
        ("health-port", "https", "whole number from 1 to 65535"),
        ("health-path", "health", "begins with a slash"),
        ("health-path", "/a b", "begins with a slash"),
        ("health-path", "/a\r\nHost: b", "begins with a slash"),
        ("health-min-active", "50", "the sign is missing, expected a percentage from 0% to 100%"),
        ("health-min-active", "050", "did you mean 50%?"),
        ("health-min-active", "101", "expected a percentage from 0% to 100%"),
        ("health-min-active", "101%", "expected a percentage from 0% to 100%"),
        ("health-idle-interval", "0s", "expected at least 10ms"),
        ("drain-endpoints", "infra1", "the port is missing"),
        ("prefer", "10.0.0.0/33", "expected a network such as 10.0.0.0/8"),
        ("prefer", "10.0.0.1/8", "is not the network's, expected 10.0.0.0/8"),
        ("prefer", "rack7", "expected a network such as 10.0.0.0/8"),
        ("allow", "10.0.0.0/33", "expected a network such as 10.0.0.0/8"),
        ("allow", "10.0.0.1/8", "is not the network's, expected 10.0.0.0/8"),
        ("allow", "10.0.0.0/8,", "expected a network such as 10.0.0.0/8"),
        ("allow", "fe80::1%lo", "a scope id (%interface) is not supported"),
        ("allow", "unix", "clients on UNIX sockets are always served"),
        ("proxy-in", "lb", "expected a network such as 10.0.0.0/8 or fd00::/8, or unix"),
        ("proxy-in", "10.0.0.1/8", "expected 10.0.0.0/8, or unix"),
        ("proxy-out", "v3", "expected off, v1 or v2"),
        ("proxy-out", "2", "expected off, v1 or v2"),
        ("source-addr", "10.0.0.1:80", "expected an IP address of this host, without a port"),
        ("source-addr", "eth0", "expected an IP address of this host"),
        ("source-addr", "fe80::1%eth0", "expected an IP address of this host"),
        ("source-addr", "0.0.0.0", "expected an IP address of this host"),
        ("source-addr", "::", "expected an IP address of this host"),
        ("source-addr", "224.0.0.1", "expected an IP address of this host"),
        ("source-addr", "255.255.255.255", "expected an IP address of this host"),
        ("source-addr", "fe80::1", "expected an IP address of this host, without a port, that is"),
        ("source-addr", "10.0.0.1,10.0.0.2", "expected one address for each family"),
        ("source-addr", "::1,fd00::1", "expected one address for each family"),
        ("slow-start", "-1s", "expected"),
        ("close-spread", "5", "unit is missing"),
        ("max-session-rate", "-1", "expected a whole number from 0 to 1000000"),
        ("max-sessions", "unlimited", "to 10000000; 0: as many as the open files allow"),
        ("max-session-rate", "off", "to 1000000; 0: any number"),
        ("idle-timeout", "off", "1m30s or 1.5h, or 0s: never"),
        ("removal-grace", "forever", "1m30s or 1.5h, or 0s: until they end"),
        ("max-session-age", "1ms", "expected at least 100ms, or 0s: never"),
        ("rebalance", "10ms", "expected at least 1s, or 0s: off"),
        ("host-seed", "a\tb", "at most 255 printable characters"),
        ("host-seed", "x" * 256, "at most 255 printable characters"),
        ("access-log", "yes", "expected true or false"),
        ("access-log", "", "a value is missing"),
        ("discovery-srv", "a b", "letters, digits"),
        ("discovery-srv", "a." * 120, "at most 231"),
        ("discovery-srv", "10.0.0.1", "IP addresses go to --endpoints"),
        ("discovery-srv", "_postgresql._tcp", "expected a domain behind it"),
        ("discovery-srv-name", "a.b", "letters, digits"),
        ("trusted-ca-file", "a\0b", "path of a file"),
        ("health-cert-file", "c", "expected --health-key-file beside it"),
        ("health-key-file", "c", "expected --health-cert-file beside it"),
        ("discovery-srv-name", "a", "expected --discovery-srv beside it"),
    ],
)
def test_wrong_values(name: str, text: str, reason: str) -> None:
    """A value that cannot be used is refused with the flag, the value and what was expected."""
    with pytest.raises(ConfigError) as caught:
        build({name: [text]}, {}, {})
    assert reason in str(caught.value)
    assert str(caught.value).startswith(f'--{name} "')


@pytest.mark.parametrize(
    ("listen", "admin"),
    [
        ("127.0.0.1:1", "127.0.0.1:1"),
        ("", "127.0.0.1:23790"),
        (":1", "[::1]:1"),
        ("unix:/run/g.sock,mode=0600", "127.0.0.1:2,unix:/run/g.sock"),
        ("127.0.0.1:1", "localhost:1"),
        ("localhost:1", "127.0.0.1:1"),
        ("127.0.0.1:1", ":1"),
        ("gateway.example.com:1", ":1"),
        ("127.0.0.1:1", "0.0.0.0:1"),
        ("[::]:1", "[::1]:1"),
    ],
)
def test_clients_and_the_admin_address_are_apart(listen: str, admin: str) -> None:
    """The bind of the second would fail, and its error would blame another program."""
    flags = {"admin-addr": [admin]} | ({"listen-addr": [listen]} if listen else {})
    with pytest.raises(ConfigError, match="expected another address than --listen-addr"):
        build(flags, {}, {})
    flags["listen-addr"] = ["127.0.0.2:3,unix:/run/other.sock"]
    assert build(flags, {}, {}).admin_addr


@pytest.mark.parametrize(
    ("listen", "admin"),
    [
        (":1", "unix:/run/admin.sock:1"),
        ("127.0.0.1:1", "127.0.0.2:1"),
        ("[::]:1", "127.0.0.1:1"),
        ("0.0.0.0:1", "[::1]:1"),
        ("gateway.example.com:1", "127.0.0.1:1"),
        ("unix:/run/g.sock", "unix:/run/admin.sock,:1"),
    ],
)
def test_addresses_that_both_can_be_had_are_taken(listen: str, admin: str) -> None:
    """Other families, other addresses of one port, and a path that ends like an address."""
    assert build({"listen-addr": [listen], "admin-addr": [admin]}, {}, {}).admin_addr


@pytest.mark.parametrize(
    ("listen", "included"),
    [
        (":1,127.0.0.1:1", "127.0.0.1:1"),
        ("127.0.0.1:1,:1", "127.0.0.1:1"),
        ("0.0.0.0:1,10.0.0.1:1", "10.0.0.1:1"),
        ("[::1]:1,[::]:1", "[::1]:1"),
        (":1,[::]:1", "[::]:1"),
        (":1,gateway.example.com:1", "gateway.example.com:1"),
        ("0.0.0.0:1,localhost:1", "localhost:1"),
    ],
)
def test_a_listen_address_is_not_part_of_another(listen: str, included: str) -> None:
    """The bind of the second would fail, and its error would blame another program."""
    with pytest.raises(ConfigError, match="includes it, expected one of the two") as caught:
        build({"listen-addr": [listen]}, {}, {})
    assert str(caught.value).startswith(f'--listen-addr "{included}"')
    build({"listen-addr": [listen.replace(":1,", ":2,")]}, {}, {})


@pytest.mark.parametrize("listen", ["127.0.0.1:1,localhost:1", "[::]:1,0.0.0.0:1", "a.b:1,c.d:1"])
def test_listen_addresses_beside_each_other(listen: str) -> None:
    """What may turn out to be the same is for the one who looks it up."""
    assert len(build({"listen-addr": [listen]}, {}, {}).listen_addr) == 2


@pytest.mark.parametrize("admin", ["127.0.0.1:1,localhost:1", ":1,127.0.0.1:1", "[::1]:1,[::]:1"])
def test_admin_addresses_are_apart(admin: str) -> None:
    """The bind of the second would fail."""
    with pytest.raises(ConfigError, match="expected each admin address once"):
        build({"admin-addr": [admin]}, {}, {})


def test_a_full_record_name_has_no_suffix() -> None:
    """A discovery name that is complete cannot get a suffix."""
    with pytest.raises(ConfigError, match="full record name"):
        from_flags(discovery_srv="_http._tcp.example.com", discovery_srv_name="a")


def test_who_only_asks_where_the_gateway_is_reads_past_unknown_keys() -> None:
    """A file that was broken after a start still tells what its known keys say."""
    document = {"admin-addr": "unix:/run/admin", "wkr": 1}
    config = build({}, {}, document, only=("admin-addr",), strict=False)
    assert [str(each) for each in config.admin_addr] == ["unix:/run/admin"]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (
            {"dial_timeout": "1s"},
            '"dial_timeout" in g.toml: unknown key, did you mean dial-timeout?',
        ),
        ({"--workers": 1}, "unknown key, did you mean workers?"),
        ({"wkr": 1}, "unknown key, expected a flag's name"),
        ({"config-file": "x"}, "not possible in the file"),
        ({"workers": [1]}, "expected one value"),
        ({"workers": {"a": 1}}, "expected one value"),
        ({"workers": True}, 'workers in g.toml "true": expected a whole number'),
        (
            {"discovery-srv": False},
            'discovery-srv in g.toml "false": expected a text in quotes; "" is none',
        ),
        ({"admin-host": True}, 'admin-host in g.toml "true": expected a text in quotes; "" is'),
        ({"workers": 1.5}, "expected a whole number"),
        ({"retry-delay": 5}, "unit is missing"),
        ({"endpoints": [1]}, "expected a list of strings"),
        ({"endpoints": {}}, "expected a string or a list of strings"),
        ({"endpoints": []}, "port is missing"),
        ({"endpoints": None}, "expected a string or a list of strings"),
        ({"access-log": "yes"}, "expected true or false"),
    ],
)
def test_wrong_files(document: Mapping[str, Any], reason: str) -> None:
    """An error in the config file names the key and the file."""
    with pytest.raises(ConfigError) as caught:
        build({}, {}, document, document_name="g.toml")
    assert reason in str(caught.value)


def test_errors_name_the_variable() -> None:
    """An error in the environment names the variable."""
    with pytest.raises(ConfigError, match=r'^GATEWAY_WORKERS "x": expected'):
        build({}, {"GATEWAY_WORKERS": "x"}, {})


def test_only_some_flags() -> None:
    """A command that needs two flags is not stopped by a third one."""
    config = build(
        {}, {"GATEWAY_WORKERS": "x", "GATEWAY_ADMIN_ADDR": ":1"}, {}, only=("admin-addr",)
    )
    assert config.admin_addr == (":1",)


def test_finding_the_file() -> None:
    """The config file is named by flag or variable."""
    assert find_config_file({}, {}) == ""
    assert find_config_file({"config-file": ["a"]}, {"GATEWAY_CONFIG_FILE": "b"}) == "a"
    assert find_config_file({"workers": ["x"]}, {"GATEWAY_CONFIG_FILE": "b"}) == "b"


@given(st.sampled_from(FLAGS), st.text() | st.text("0123456789.,:smh[]-/\n", max_size=20))
def test_any_text_is_a_value_or_one_line(flag: Flag, text: str) -> None:
    """No text raises anything but ConfigError, whose text is one printable line."""
    try:
        build({flag.name: [text]}, {}, {})
    except ConfigError as error:
        line = str(error)
    else:
        return
    assert line.isprintable()
    assert len(line) < 4000


_TOML = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from(sorted(BY_NAME)) | st.text(max_size=20), _TOML, max_size=4))
def test_any_document_is_a_config_or_one_line(document: dict[str, Any]) -> None:
    """No document raises anything but ConfigError."""
    try:
        config = build({}, {}, document)
    except ConfigError as error:
        line = str(error)
    else:
        assert isinstance(config, Config)
        return
    assert line.isprintable()


def test_switches_are_known() -> None:
    """The booleans of the contract are switches."""
    assert {flag.name for flag in FLAGS if flag.kind is FlagKind.SWITCH} == {
        "insecure-discovery",
        "pin-workers",
        "handover",
        "access-log",
    }


def test_a_packaged_default_gives_way_to_everything_else() -> None:
    """``GATEWAY_DEFAULT_X`` counts where no flag, no variable and no key of the file says X."""
    environ = {"GATEWAY_DEFAULT_ADMIN_ADDR": "127.0.0.1:1"}
    document = {"admin-addr": "127.0.0.1:2"}
    variable = {"GATEWAY_ADMIN_ADDR": "127.0.0.1:3"}
    assert build({}, environ, {}).admin_addr == ("127.0.0.1:1",)
    assert build({}, environ, document).admin_addr == ("127.0.0.1:2",)
    assert build({}, environ | variable, document).admin_addr == ("127.0.0.1:3",)
    assert build({"admin-addr": [""]}, environ, document).admin_addr == ()
    by_file = next(e for e in build({}, environ, document).effective if e.flag == "admin-addr")
    assert (by_file.source.value, by_file.overrides) == ("file", ())
    packaged = next(e for e in build({}, environ, {}).effective if e.flag == "admin-addr")
    assert packaged.source.value == "package"


def test_a_wrong_packaged_default_is_named() -> None:
    """An error in a packaged default names its variable."""
    with pytest.raises(ConfigError, match='GATEWAY_DEFAULT_WORKERS "many": expected'):
        build({}, {"GATEWAY_DEFAULT_WORKERS": "many"}, {})


def test_options_of_a_unix_address_stand_between_commas() -> None:
    """As a flag, as a variable and in the file; a list of the file has them with their address."""
    text = "unix:/a,mode=0600,127.0.0.1:1,unix:/b,group=adm"
    expected = (
        UnixAddress("/a", 0o600),
        HostPort("127.0.0.1", 1),
        UnixAddress("/b", group="adm"),
    )
    assert build({"listen-addr": [text]}, {}, {}).listen_addr == expected
    assert build({}, {"GATEWAY_LISTEN_ADDR": text}, {}).listen_addr == expected
    assert build({}, {}, {"listen-addr": text}).listen_addr == expected
    items = ["unix:/a,mode=0600", "127.0.0.1:1", "unix:/b, group=adm"]
    assert build({}, {}, {"listen-addr": items}).listen_addr == expected
    assert build({"listen-addr": items}, {}, {}).listen_addr == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("unix:/a,unix:/a,mode=0600", "expected each path once"),
        ("unix:/a,mode=0600,unix:/a", "expected each path once"),
        ("unix:/a,user=x,:1", "unknown option user="),
        (":1,mode=0660", "right behind its address"),
    ],
)
def test_what_is_wrong_with_options(text: str, reason: str) -> None:
    """One clear line, whatever stands around it."""
    with pytest.raises(ConfigError, match=reason):
        build({"listen-addr": [text]}, {}, {})
