#!/bin/bash
# The whole agent with one camera beside `ffmpeg -c copy`: the same 1080p25 stream, at the same time.
#
#   tests/bench-camera.sh [ROUNDS] [SECONDS]        default: 3 rounds of 60 s
#
# The agent is the shipped one: its reader process, its buffer on disk, its TLS connection to a hub
# that stores what it sends. It records 10 s segments and a still each 30 s, the defaults; ffmpeg
# records 10 s of fragmented MP4. In each round both start anew, the one that starts first changes,
# the first seconds are not counted. CPU: user and system time of /proc/PID/stat per minute of video.
# Memory: of the end of the round; RSS counts shared libraries in full, PSS by share. `peak`: the
# highest RSS since the start. Prints a line of key=value pairs each round, then the medians.
#
# SCC_BIN: folder with scc-agent, scc-hub and scc-provision; default: built here in release mode.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-3} seconds=${2:-60} warmup=8
bin=${SCC_BIN:-}
if [ -z "$bin" ]; then
    cargo build --quiet --release --locked --workspace --bins
    bin=${CARGO_TARGET_DIR:-target}/release
fi
work=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

# -- the stream
footage=$(tests/footage.sh "${SCC_FOOTAGE_CACHE:-${CARGO_TARGET_DIR:-target}/footage}" 1080)
mkfifo "$work/commands" "$work/answers"
/usr/bin/python3 tests/stand-in/camera/camera.py 0 "a=$footage" <"$work/commands" >"$work/answers" &
pids+=($!)
exec 3>"$work/commands" 4<"$work/answers"
read -r _ port <&4
url=rtsp://127.0.0.1:$port/a

# -- the hub
site=disdukcapil camera=loket
free_port() { /usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
gate=$(free_port) web=$(free_port)
"$bin/scc-provision" authority init "$work/authority" >/dev/null
"$bin/scc-provision" hub issue --authority "$work/authority" --name localhost --dns localhost --address 127.0.0.1 \
    --out "$work/hub-id" >/dev/null
"$bin/scc-provision" site issue "$site" --authority "$work/authority" --out "$work/site" >/dev/null
mkdir "$work/hub"
cat >"$work/hub.toml" <<EOF
state_dir = "$work/hub"
[gate]
listen = "127.0.0.1:$gate"
certificate = "$work/hub-id/hub.pem"
key = "$work/hub-id/hub.key"
agents_ca = "$work/hub-id/agents-ca.pem"
revocations = "$work/hub-id/agents.crl.pem"
[web]
listen = "127.0.0.1:$web"
certificate = "$work/hub-id/hub.pem"
key = "$work/hub-id/hub.key"
EOF
"$bin/scc-hub" fleet apply docs/fleet-soppeng.toml --config "$work/hub.toml" >/dev/null
"$bin/scc-hub" serve --config "$work/hub.toml" >"$work/hub.log" 2>&1 3>&- 4<&- &
pids+=($!)

# -- the two that are compared
agent() {
    rm -rf "$work/state" && mkdir "$work/state"
    cat >"$work/agent.toml" <<EOF
agent = "$site"
state_dir = "$work/state"
[hub]
address = "localhost:$gate"
[identity]
certificate = "$work/site/agent.pem"
key = "$work/site/agent.key"
hub_ca = "$work/site/hub-ca.pem"
[[camera]]
id = "$camera"
url = "$url"
EOF
    "$bin/scc-agent" run --config "$work/agent.toml" >"$work/agent.log" 2>&1 3>&- 4<&- &
    agent=$!
    pids+=("$agent")
}
copy() {
    mkdir "$work/copy-$1"
    ffmpeg -nostdin -v error -rtsp_transport tcp -timeout 5000000 -allowed_media_types video -i "$url" \
        -c copy -f segment -segment_time 10 -reset_timestamps 1 -segment_format mp4 \
        -segment_format_options movflags=frag_keyframe+empty_moov+default_base_moof \
        "$work/copy-$1/%05d.mp4" 2>"$work/copy.log" 3>&- 4<&- &
    copy=$!
    pids+=("$copy")
}
give_up() {
    tail -n 5 "$work"/*.log >&2
    echo "bench-camera.sh: $1" >&2
    exit 1
}

# clock ticks that a process has used
ticks() {
    local rest
    rest=$(<"/proc/$1/stat")
    # shellcheck disable=SC2086
    set -- ${rest##*) }
    echo $((${12} + ${13}))
}
memory() { awk -v key="$2:" '$1 == key { printf "%.1f", $2 / 1024 }' "/proc/$1/$3"; }
hz=$(getconf CLK_TCK)
per_minute() { awk -v t="$1" -v hz="$hz" -v s="$seconds" 'BEGIN { printf "%.2f", t / hz * 60 / s }'; }
# the middle, least and most of one key over the rounds
spread() {
    sed -n "s/.* $1=\([0-9.]*\).*/\1/p" "$work/rounds" | sort -g | awk '{ v[NR] = $1 }
        END { printf "%.2f(%.2f..%.2f)", NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2, v[1], v[NR] }'
}

keys=(parent_cpu_s_per_min reader_cpu_s_per_min agent_cpu_s_per_min ffmpeg_cpu_s_per_min cpu_ratio)
for who in parent reader ffmpeg; do keys+=("${who}_rss_mib" "${who}_pss_mib" "${who}_peak_mib"); done
for round in $(seq "$rounds"); do
    if ((round % 2)); then agent; copy "$round"; else copy "$round"; agent; fi
    sleep "$warmup"
    reader=$(cat /proc/"$agent"/task/*/children) || give_up 'the agent does not run'
    reader=${reader%% *}
    [ -n "$reader" ] && [ -d "/proc/$copy" ] || give_up 'the camera is not read'
    from=("$(ticks "$agent")" "$(ticks "$reader")" "$(ticks "$copy")")
    sleep "$seconds"
    [ -d "/proc/$agent" ] && [ -d "/proc/$reader" ] && [ -d "/proc/$copy" ] || give_up 'a process ended'
    p=$(($(ticks "$agent") - from[0])) r=$(($(ticks "$reader") - from[1])) c=$(($(ticks "$copy") - from[2]))
    line="bench=camera video=1080p25 round=$round seconds=$seconds load=$(cut -d ' ' -f 1 /proc/loadavg)"
    line+=" parent_cpu_s_per_min=$(per_minute "$p") reader_cpu_s_per_min=$(per_minute "$r")"
    line+=" agent_cpu_s_per_min=$(per_minute $((p + r))) ffmpeg_cpu_s_per_min=$(per_minute "$c")"
    line+=" cpu_ratio=$(awk -v a=$((p + r)) -v b="$c" 'BEGIN { printf "%.2f", b ? a / b : 0 }')"
    for who in "parent $agent" "reader $reader" "ffmpeg $copy"; do
        read -r name pid <<<"$who"
        line+=" ${name}_rss_mib=$(memory "$pid" Rss smaps_rollup) ${name}_pss_mib=$(memory "$pid" Pss smaps_rollup)"
        line+=" ${name}_peak_mib=$(memory "$pid" VmHWM status)"
    done
    echo "$line" | tee -a "$work/rounds"
    kill "$agent" "$copy"
    wait "$agent" "$copy" 2>/dev/null || true
done

# what was measured must have been work: the hub has the video, as much of it as ffmpeg recorded
stored=$(find "$work/hub" -name '*.mp4' -printf '%s\n' | awk '{ n += $1 } END { printf "%.1f", n / 1048576 }')
copied=$(find "$work" -path '*/copy-*' -name '*.mp4' -printf '%s\n' | awk '{ n += $1 } END { printf "%.1f", n / 1048576 }')
stills=$(find "$work/hub" -name '*.jpg' | wc -l)
awk -v a="$stored" -v b="$copied" -v s="$stills" 'BEGIN { exit !(b > 0 && a >= b * 0.7 && s > 0) }' ||
    give_up "the hub has $stored MiB of video and $stills stills, ffmpeg recorded $copied MiB"
line="bench=camera video=1080p25 rounds=$rounds seconds=$seconds"
for key in "${keys[@]}"; do line+=" $key=$(spread "$key")"; done
echo "$line hub_mib=$stored ffmpeg_mib=$copied stills=$stills"
