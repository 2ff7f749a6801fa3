"""The page ``docs/usage.md``, made from the table of flags and the commands."""
# ruff: noqa: E501 - the pages have one sentence per line

from __future__ import annotations

import click

from supervisor.cli.commands import program
from supervisor.core.flags import FLAGS, Flag, FlagKind, Topic

OPENING = """\
# Usage

This page is for operators: every command, every flag, every variable, every key of the config file.
It is generated from the command line itself by `make docs`; edit `supervisor/core/flags.py` instead.
"""

VALUES = """\
## Where a value comes from

For each flag on its own, the first of these that has it wins:

1. the command line, `--dial-timeout=1s` or `--dial-timeout 1s`;
2. the environment, `GATEWAY_DIAL_TIMEOUT=1s` (an empty variable counts as not set);
3. the config file, `dial-timeout = "1s"`;
4. the default.

An empty value on the command line takes back what a variable or the config file says, where having none is possible: `--admin-addr=` turns the admin address off.

The bare prefix `ETCD_` is not used: it belongs to the etcd server.
Variables that begin with `GATEWAY_` and are no flag's are ignored.

### How values are written

- **Durations** are Go's: `300ms`, `1m30s`, `1.5h`.
  A bare number other than `0` is refused, and so is a negative one.
- **Addresses** are `host:port` or `[v6]:port`; a port by name and an IPv6 scope (`%eth0`) are refused.
- **Lists** are separated by commas, and their flag may be repeated: `--endpoints=a:2379,b:2379 --endpoints=c:2379`.
- **Booleans** are set by their name alone; a value needs the equals sign: `--access-log`, `--access-log=false`.
- Any other flag that is given twice takes the last value.

### The config file

It is TOML, and its keys are the flags' names without the dashes in front.
Lists may be TOML lists; booleans and whole numbers may be TOML's own.
A key that is no flag's is an error, so a misspelled one is noticed.
The file is read again on SIGHUP, and has to be a regular file.
If it cannot be used, the gateway keeps what it has and logs `reload failed`.

```toml
discovery-srv = "example.com"
trusted-ca-file = "/etc/etcd/ca.pem"
listen-addr = ["127.0.0.1:23790", "[::1]:23790"]
admin-addr = "unix:/run/etcd-gateway.sock"
drain-timeout = "1m"
access-log = true
workers = 4
```
"""

CLOSING = """\
## Exit codes

| code | when |
|---|---|
| 0 | stopped by a signal, or the command did what it was asked for |
| 1 | a failure at run time: a listen address cannot be bound, or another program holds it |
| 2 | wrong usage: a flag, a variable or a key of the config file |
| 69 | no endpoint: DNS has none, or none passed the TLS check; `check`: none can be dialed |
| 70 | workers keep dying before they are ready |

An error is one line on standard error that names the flag, the value and what was expected:

```text
etcd-gateway: --endpoints "infra0.example.com": the port is missing, expected host:port
```

## Completion

```sh
etcd-gateway completion bash > /etc/bash_completion.d/etcd-gateway
etcd-gateway completion zsh > "${fpath[1]}/_etcd-gateway"
etcd-gateway completion fish > ~/.config/fish/completions/etcd-gateway.fish
```
"""


def render() -> str:
    """The whole page."""
    parts = [OPENING, _commands(), VALUES, "## Flags of `start` and `check`\n"]
    parts += [_topic(topic) for topic in Topic]
    return "\n".join([*parts, CLOSING])


def _commands() -> str:
    lines = ["## Commands", ""]
    for name, command in sorted(program.commands.items()):
        own = [
            param
            for param in command.params
            if isinstance(param, click.Option) and param.is_flag and not param.multiple
        ]
        text = " ".join((command.help or "").split())
        lines.append(f"- `etcd-gateway {name}`: {_lower(text)}")
        lines += [f"  `{param.opts[0]}`: {_lower(param.help or '')}" for param in own]
    lines += [
        "",
        "`status` and `reload` find the running gateway by `--admin-addr`, its variable, or the config file.",
        "`etcd-gateway --version` and `--help` do what they say; every command has `--help`.",
        "",
    ]
    return "\n".join(lines)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _topic(topic: Topic) -> str:
    rows = [_row(flag) for flag in FLAGS if flag.topic is topic]
    head = ["| flag | default | variable | what it does |", "|---|---|---|---|"]
    return "\n".join([f"### {topic.value}", "", *head, *rows, ""])


def _row(flag: Flag) -> str:
    value = flag.metavar.replace("|", "\\|")
    name = f"`--{flag.name}`" if flag.kind is FlagKind.SWITCH else f"`--{flag.name}={value}`"
    default = f"`{flag.default}`" if flag.default else ""
    return f"| {name} | {default} | `{flag.variable}` | {flag.help.replace('|', chr(92) + '|')} |"
