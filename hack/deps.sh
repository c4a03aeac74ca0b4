#!/usr/bin/env bash
# Installs what the tests need of the machine and it lacks: PostgreSQL's server, which the tests run themselves, in folders of their own.
set -euo pipefail

have_postgres() {
  compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || command -v postgres >/dev/null
}

if have_postgres; then
  exit 0
fi
if [[ $(id -u) -ne 0 ]]; then
  echo "PostgreSQL's server is missing; install it as root: apt-get install --no-install-recommends postgresql" >&2
  exit 1
fi
if ! command -v apt-get >/dev/null; then
  echo "PostgreSQL's server is missing and this machine has no apt-get: install what your distribution calls postgresql" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# Debian's package starts a server of the machine's own unless told otherwise; the tests want the programs alone.
dropin=/etc/postgresql-common/createcluster.d/metip-tests.conf
mkdir -p "${dropin%/*}"
trap 'rm -f "$dropin"' EXIT
echo "create_main_cluster = false" >"$dropin"
apt-get install -q -y --no-install-recommends postgresql
have_postgres
