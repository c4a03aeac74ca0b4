#!/usr/bin/env bash
# Installs what the tests need of the machine and it lacks: Debian's servers, which the tests run themselves, each in a folder of its own.
# A server that a new connector is tested with is a line here: its package, and a file that shows that it is there.
set -euo pipefail

servers=(
  "activemq:/usr/share/activemq/bin/activemq.jar"
  "mosquitto:/usr/sbin/mosquitto"
  "nodejs:/usr/bin/node"
  "openssh-server:/usr/sbin/sshd"
  "postgresql:/usr/lib/postgresql/*/bin/postgres"
  "rabbitmq-server:/usr/lib/rabbitmq/bin/rabbitmq-server"
)

missing() {
  local line
  for line in "${servers[@]}"; do
    compgen -G "${line#*:}" >/dev/null || echo "${line%%:*}"
  done
}

mapfile -t packages < <(missing)
if [[ ${#packages[@]} -eq 0 ]]; then
  exit 0
fi
if [[ $(id -u) -ne 0 ]]; then
  echo "missing; install as root: apt-get install --no-install-recommends ${packages[*]}" >&2
  exit 1
fi
if ! command -v apt-get >/dev/null; then
  echo "this machine has no apt-get: install what your distribution calls ${packages[*]}" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
# Debian's packages start servers of the machine's own unless told otherwise; the tests want the programs alone.
postgres=/etc/postgresql-common/createcluster.d/metip-tests.conf
policy=/usr/sbin/policy-rc.d
made=("$postgres")
trap 'rm -f "${made[@]}"' EXIT
mkdir -p "${postgres%/*}"
echo "create_main_cluster = false" >"$postgres"
if [[ ! -e $policy ]]; then
  made+=("$policy")
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
fi
apt-get update -q
apt-get install -q -y --no-install-recommends "${packages[@]}"
mapfile -t packages < <(missing)
if [[ ${#packages[@]} -ne 0 ]]; then
  echo "installed, and still not where it is looked for: ${packages[*]}" >&2
  exit 1
fi
