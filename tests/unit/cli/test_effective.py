"""The effective configuration: values, their sources, what they override, what is misspelled."""

from __future__ import annotations

import pytest

from supervisor.core.config import build
from supervisor.core.config_error import ConfigError
from supervisor.core.effective import EffectiveValue, Source, to_document
from supervisor.core.flags import FLAGS
from supervisor.core.reload_rules import keep_fixed
from supervisor.core.spelling import nearest


def test_every_value_has_its_source() -> None:
    """Each flag is listed once, with the text and the source that won."""
    config = build(
        {"endpoints": ["a:1", "b:2,c:3"], "log-level": ["info", "debug"]},
        {"GATEWAY_DIAL_TIMEOUT": "1s"},
        {"access-log": True, "listen-addr": ["a:1", "b:2"]},
    )
    assert [each.flag for each in config.effective] == [flag.name for flag in FLAGS]
    values = {each.flag: each for each in config.effective}
    assert values["endpoints"] == EffectiveValue("endpoints", "a:1,b:2,c:3", Source.FLAG)
    assert values["log-level"] == EffectiveValue("log-level", "debug", Source.FLAG)
    assert values["dial-timeout"] == EffectiveValue("dial-timeout", "1s", Source.VARIABLE)
    assert values["access-log"] == EffectiveValue("access-log", "true", Source.FILE)
    assert values["listen-addr"] == EffectiveValue("listen-addr", "a:1,b:2", Source.FILE)
    assert values["balance"] == EffectiveValue("balance", "round-robin", Source.DEFAULT)


def test_what_a_value_overrides_is_kept() -> None:
    """A different text in a source that lost is listed; the same text is not."""
    config = build(
        {"workers": ["2"]},
        {"GATEWAY_WORKERS": "2", "GATEWAY_ADMIN_ADDR": "unix:/run/a.sock"},
        {"workers": 4, "admin-addr": "127.0.0.1:9379"},
    )
    values = {each.flag: each for each in config.effective}
    assert values["workers"].overrides == ((Source.FILE, "4"),)
    assert values["admin-addr"].overrides == ((Source.FILE, "127.0.0.1:9379"),)
    document = to_document(config.effective)
    assert document["workers"] == {"value": "2", "source": "flag", "overrides": {"file": "4"}}
    assert document["balance"] == {"value": "round-robin", "source": "default"}


def test_the_same_value_in_other_words_is_not_overridden() -> None:
    """Values are compared as the gateway uses them, not as they are written."""
    config = build(
        {"retry-delay": ["60s"], "endpoints": ["a:1, b:2"], "allow": ["10.0.0.0/8"]},
        {"GATEWAY_RETRY_DELAY": "1m", "GATEWAY_ENDPOINTS": "http://a:1,b:2,a:1"},
        {"retry-delay": "1m0s", "endpoints": ["https://a:1", "b:2"], "allow": "10.0.0.0/9"},
    )
    values = {each.flag: each for each in config.effective}
    assert values["retry-delay"].overrides == ()
    assert values["endpoints"].overrides == ((Source.FILE, "https://a:1,b:2"),)
    assert values["allow"].overrides == ((Source.FILE, "10.0.0.0/9"),)


def test_what_is_wrong_with_an_overridden_value_is_told() -> None:
    """It would be an error on the day on which nothing overrides it any more."""
    given = {"drain-timeout": ["5s"], "workers": ["2"]}
    config = build(given, {"GATEWAY_DRAIN_TIMEOUT": "5"}, {"workers": 0, "drain-timeout": "1m"})
    variable, key = config.wrong_but_overridden
    assert variable.startswith('GATEWAY_DRAIN_TIMEOUT "5": the unit is missing')
    assert key.startswith('workers in the config file "0": expected a whole number')
    assert build(given, {}, {}).wrong_but_overridden == ()
    (key,) = build(given, {}, {"workers": [2]}).wrong_but_overridden
    assert key == 'workers in the config file "[2]": expected one value'
    with pytest.raises(ConfigError, match="expected one value"):
        build({}, {}, {"workers": [2]})


def test_a_reload_shows_what_it_could_not_change() -> None:
    """A fixed value keeps its text and source after a reload; the others take the new ones."""
    running = build({}, {}, {"workers": 2, "balance": "round-robin"})
    read = build({}, {}, {"workers": 4, "balance": "least-sessions"})
    values = {each.flag: each for each in keep_fixed(running, read)[0].effective}
    assert values["workers"].value == "2"
    assert values["balance"].value == "least-sessions"


def test_addresses_in_another_order_need_no_restart() -> None:
    """They stay in the order in which they are served."""
    running = build({}, {}, {"listen-addr": ["a:1", "b:2"], "admin-addr": "127.0.0.1:3,[::1]:3"})
    read = build({}, {}, {"listen-addr": "b:2,a:1", "admin-addr": ["[::1]:3", "127.0.0.1:3"]})
    kept, in_vain = keep_fixed(running, read)
    assert in_vain == ()
    assert (kept.listen_addr, kept.admin_addr) == (running.listen_addr, running.admin_addr)
    other = build({}, {}, {"listen-addr": "b:2", "admin-addr": "127.0.0.1:3,[::1]:3"})
    assert keep_fixed(running, other)[1] == ("--listen-addr",)


@pytest.mark.parametrize(
    ("environ", "misspelled"),
    [
        ({"GATEWAY_ENDPIONTS": "a:1"}, (("GATEWAY_ENDPIONTS", "GATEWAY_ENDPOINTS"),)),
        ({"GATEWAY_worker": "1"}, (("GATEWAY_worker", "GATEWAY_WORKERS"),)),
        ({"GATEWAY_LISTENADR": "x"}, (("GATEWAY_LISTENADR", "GATEWAY_LISTEN_ADDR"),)),
        ({"GATEWAY_PORT_80_TCP": "tcp://10.0.0.1:80", "GATEWAY_SERVICE_HOST": "10.0.0.1"}, ()),
        ({"GATEWAY_PORT": "tcp://10.0.0.1:80", "GATEWAY_": "", "ENDPIONTS": ""}, ()),
        ({"GATEWAY_ENDPOINTS": "a:1"}, ()),
    ],
)
def test_misspelled_variables(
    environ: dict[str, str], misspelled: tuple[tuple[str, str], ...]
) -> None:
    """A variable one or two letters from a flag's is noticed; those of Kubernetes are not."""
    assert build({}, environ, {}).misspelled == misspelled


@pytest.mark.parametrize(
    ("document", "line"),
    [
        ({"endpionts": "a:1"}, '"endpionts" in g.toml: unknown key, did you mean endpoints?'),
        ({"dial_timeout": "1s"}, "unknown key, did you mean dial-timeout?"),
        ({"frobnicate": 1}, "unknown key, expected a flag's name without the dashes in front"),
        ({"gateway": {"workers": 1}}, 'table "gateway" in g.toml: the file has no tables'),
    ],
)
def test_misspelled_keys(document: dict[str, object], line: str) -> None:
    """An unknown key of the config file is answered with what was probably meant."""
    with pytest.raises(ConfigError) as caught:
        build({}, {}, document, document_name="g.toml")
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("sart", "start"),
        ("chekc", "check"),
        ("statsu", "status"),
        ("demos", "demo"),
        ("xyzo", ""),
        ("", ""),
    ],
)
def test_the_nearest_name(word: str, meant: str) -> None:
    """One or two edits are forgiven, fewer in short names; anything else has no neighbour."""
    assert nearest(word, ["start", "check", "status", "demo"]) == meant
