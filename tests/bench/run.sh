#!/bin/bash
# Runs one of the measurements, in release mode, after its peers have been installed.
#
#   tests/bench/run.sh ingest|idle|recovery|media
#
# QUICK=1: a look of less than a minute, whose figures mean little. The peers come from Debian
# (mosquitto, nats-server, postgresql) and npm (Node-RED, pinned by tests/bench/node-red/package-lock.json); none of
# the machine's own services is used or touched. The last line is the result.
set -euo pipefail
cd "$(dirname "$0")/../.."
what=$1
target=${CARGO_TARGET_DIR:-target}
quick=${QUICK:-}

peers=(mosquitto)
[ "$what" != ingest ] || peers+=(nats-server postgresql node)
declare -A package=([mosquitto]=mosquitto [nats-server]=nats-server [postgresql]=postgresql-15 [node]=nodejs)
missing=()
for peer in "${peers[@]}"; do
    [ -x "/usr/lib/$peer/15/bin/postgres" ] || PATH=$PATH:/usr/sbin command -v "$peer" >/dev/null || missing+=("${package[$peer]}")
done
if [ ${#missing[@]} -gt 0 ] && [ "$what" != media ]; then
    echo "installing ${missing[*]}" >&2
    sudo=$([ "$(id -u)" = 0 ] || echo sudo)
    $sudo apt-get update -qq
    # a package that starts a service by itself is kept from it
    policy=/usr/sbin/policy-rc.d made=
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
        $sudo chmod +x $policy
        made=1
    fi
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
    [ -z "$made" ] || $sudo rm $policy
fi
export PATH=$PATH:/usr/sbin

cargo build --quiet --release --locked -p scc-hub -p scc-tests --bin scc-hub --bin "bench-$what" --bin bench-load --bin bench-consumer

arguments=()
case $what in
ingest)
    nodes=$target/bench/node-red
    mkdir -p "$nodes"
    cp tests/bench/node-red/* "$nodes"
    if ! cmp -s "$nodes/package-lock.json" "$nodes/node_modules/.installed"; then
        (cd "$nodes" && npm ci --no-audit --no-fund --silent --omit=optional --ignore-scripts)
        cp "$nodes/package-lock.json" "$nodes/node_modules/.installed"
    fi
    SCC_BENCH_NODE_RED=$(realpath "$nodes")
    export SCC_BENCH_NODE_RED
    [ -z "$quick" ] || arguments=(--rounds 1 --rows 20000 --steady 3 --who hub --who mosquitto --no-kills)
    ;;
idle) [ -z "$quick" ] || arguments=(--connections 200 --seconds 10) ;;
recovery) [ -z "$quick" ] || arguments=(--agents 5 --records 1000 --bridged 2000) ;;
media) [ -z "$quick" ] || arguments=(--rounds 1 --megabytes 80) ;;
*)
    echo "run.sh: no such measurement: $what" >&2
    exit 2
    ;;
esac
[ -z "$quick" ] || echo "QUICK=1: a look, not a measurement" >&2
timeout 1800 "$target/release/bench-$what" "${arguments[@]}"
